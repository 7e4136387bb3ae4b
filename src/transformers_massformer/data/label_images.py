"""Label maps as images with a palette: one colour per class."""

import numpy as np
import PIL.Image


# Colours of MaSS13K's classes, in their order.
MASS13K_PALETTE = (
    (255, 204, 51),  # others
    (228, 76, 101),  # human
    (140, 98, 170),  # building
    (64, 150, 72),  # vegetation
    (176, 138, 104),  # ground
    (116, 190, 240),  # sky
    (36, 92, 190),  # water
)


def class_palette(num_labels: int) -> np.ndarray:
    """
    Return one colour per class: MaSS13K's for the first seven, then the colours of PASCAL VOC's scheme, in which each
    bit of the index sets one bit of a channel, so that all colours differ.

    Args:
        num_labels (`int`): Number of classes, at most 256.

    Returns:
        `np.ndarray` of shape `(num_labels, 3)`: uint8 RGB.

    Raises:
        ValueError: If there are more than 256 classes.
    """
    if num_labels > 256:
        raise ValueError(f"A palette holds 256 colours, but there are {num_labels} classes.")
    palette = np.zeros((num_labels, 3), dtype=np.uint8)
    for label in range(num_labels):
        for bit in range(8):
            palette[label, bit % 3] |= (label >> bit & 1) << (7 - bit // 3)
    known = min(num_labels, len(MASS13K_PALETTE))
    palette[:known] = MASS13K_PALETTE[:known]
    return palette


def label_map_image(label_map: np.ndarray, num_labels: int) -> PIL.Image.Image:
    """
    Convert a label map to an image whose pixel values are the class indices and whose palette colours them.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Class indices, or 255 for pixels without a class.
        num_labels (`int`): Number of classes, at most 256.

    Returns:
        `PIL.Image.Image`: In mode P.
    """
    image = PIL.Image.fromarray(np.ascontiguousarray(label_map, dtype=np.uint8))
    # A PNG has as few bits per pixel as its palette needs, so the palette must have a colour for every value.
    image.putpalette(class_palette(max(num_labels, int(label_map.max(initial=0)) + 1)).tobytes())
    return image
