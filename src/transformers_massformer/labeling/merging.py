"""Merge single objects into label maps."""

from collections.abc import Sequence

import numpy as np

from ..data.annotations import decode_mask
from .instances import Instance


def pseudo_label_map(instances: Sequence[Instance], size: tuple[int, int]) -> np.ndarray:
    """
    Draw the accepted objects of a photo into one map. Where several overlap, the one with the highest score wins.

    Args:
        instances (`Sequence[Instance]`): The objects.
        size (`tuple[int, int]`): Height and width of the photo.

    Returns:
        `np.ndarray` of shape `(height, width)`: Ids of the new classes and 0 elsewhere, uint8.
    """
    label_map = np.zeros(size, np.uint8)
    for instance in sorted(instances, key=lambda each: each.score):
        if instance.accepted:
            label_map[decode_mask(instance.mask)] = instance.class_id
    return label_map


def combined_label_map(
    label_map: np.ndarray, pseudo_labels: np.ndarray, ignore_index: int, relabel_all: bool
) -> np.ndarray:
    """
    Add new classes to a label map. Ignored pixels stay ignored.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): The known classes.
        pseudo_labels (`np.ndarray` of shape `(height, width)`): The new classes, from [`pseudo_label_map`].
        ignore_index (`int`): Label of pixels without a class.
        relabel_all (`bool`): Whether a new class may replace every class, or only "others".

    Returns:
        `np.ndarray` of shape `(height, width)`: The combined label map, uint8.
    """
    free = label_map != ignore_index if relabel_all else label_map == 0
    return np.where(free & (pseudo_labels > 0), pseudo_labels, label_map)
