"""Merge single objects into label maps."""

from collections.abc import Sequence

import numpy as np

from ..data.annotations import decode_mask
from .instances import Instance


def pseudo_label_map(instances: Sequence[Instance], size: tuple[int, int], elsewhere: int = 0) -> np.ndarray:
    """
    Draw the accepted objects of a photo into one map. Where several overlap, the one with the highest score wins.

    Args:
        instances (`Sequence[Instance]`): The objects.
        size (`tuple[int, int]`): Height and width of the photo.
        elsewhere (`int`, *optional*, defaults to 0): Id of the remaining pixels, that of "others".

    Returns:
        `np.ndarray` of shape `(height, width)`: Ids of the new classes and `elsewhere`, uint8.
    """
    label_map = np.full(size, elsewhere, np.uint8)
    for instance in sorted(instances, key=lambda each: each.score):
        if instance.accepted:
            label_map[decode_mask(instance.mask)] = instance.class_id
    return label_map


def combined_label_map(
    label_map: np.ndarray, pseudo_labels: np.ndarray, ignore_index: int, relabel_all: bool, elsewhere: int = 0
) -> np.ndarray:
    """
    Add new classes to a label map. Ignored pixels stay ignored.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): The known classes.
        pseudo_labels (`np.ndarray` of shape `(height, width)`): The new classes, from [`pseudo_label_map`].
        ignore_index (`int`): Label of pixels without a class.
        relabel_all (`bool`): Whether a new class may replace every class, or only "others".
        elsewhere (`int`, *optional*, defaults to 0): Id of "others", which is that of the remaining pixels in
            `pseudo_labels`.

    Returns:
        `np.ndarray` of shape `(height, width)`: The combined label map, uint8.
    """
    free = label_map != ignore_index if relabel_all else label_map == elsewhere
    return np.where(free & (pseudo_labels != elsewhere), pseudo_labels, label_map)
