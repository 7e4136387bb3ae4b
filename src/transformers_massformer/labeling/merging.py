"""From single objects to label maps."""

from collections.abc import Sequence

import numpy as np

from ..data.annotations import decode_mask
from .instances import Instance


def pseudo_label_map(instances: Sequence[Instance], size: tuple[int, int]) -> np.ndarray:
    """
    The accepted objects of a photograph in one map. Where several overlap, that with the highest score counts.

    Args:
        instances (`Sequence[Instance]`): The objects.
        size (`tuple[int, int]`): Height and width of the photograph.

    Returns:
        `np.ndarray` of shape `(height, width)`: uint8, ids of the new classes, and 0 where there is none.
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
    A label map with new classes in it. Pixels to be ignored stay so.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): The known classes.
        pseudo_labels (`np.ndarray` of shape `(height, width)`): From [`pseudo_label_map`].
        ignore_index (`int`): Label of pixels without a class.
        relabel_all (`bool`): Whether pixels of every class may get a new one, or those of "others" alone.

    Returns:
        `np.ndarray` of shape `(height, width)`: uint8.
    """
    free = label_map != ignore_index if relabel_all else label_map == 0
    return np.where(free & (pseudo_labels > 0), pseudo_labels, label_map)
