"""Label maps as pictures: with a palette, and laid over their photograph."""

from collections.abc import Sequence

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
    One colour per class: MaSS13K's for the first seven, then the colours of PASCAL VOC's scheme, in which each bit of
    the index sets one bit of a channel, so that all differ.

    Args:
        num_labels (`int`): Number of classes, at most 256.

    Returns:
        `np.ndarray` of shape `(num_labels, 3)`: uint8 RGB.

    Raises:
        ValueError: If there are more classes than a palette holds.
    """
    if num_labels > 256:
        raise ValueError(f"A palette holds 256 colours, but there are {num_labels} classes.")
    palette = np.zeros((num_labels, 3), dtype=np.uint8)
    for label in range(num_labels):
        for bit in range(8):
            for channel in range(3):
                palette[label, channel] |= (label >> bit & 1) << (7 - bit // 3) if bit % 3 == channel else 0
    known = min(num_labels, len(MASS13K_PALETTE))
    palette[:known] = MASS13K_PALETTE[:known]
    return palette


def label_map_image(label_map: np.ndarray, num_labels: int) -> PIL.Image.Image:
    """
    A label map as an image whose pixel values are the class indices and whose palette shows them.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Class indices, or 255 where there is none.
        num_labels (`int`): Number of classes, at most 256.

    Returns:
        `PIL.Image.Image`: In mode P.
    """
    image = PIL.Image.fromarray(np.ascontiguousarray(label_map, dtype=np.uint8))
    # PNGs have as few bits per pixel as the palette needs, so it must have a colour for every value.
    image.putpalette(class_palette(max(num_labels, int(label_map.max(initial=0)) + 1)).tobytes())
    return image


def overlay_image(
    photo: PIL.Image.Image, label_map: np.ndarray, num_labels: int, opacity: float = 0.5
) -> PIL.Image.Image:
    """
    The classes' colours laid over a photograph.

    Args:
        photo (`PIL.Image.Image`): The photograph.
        label_map (`np.ndarray` of shape `(height, width)`): Class indices, of the photograph's size.
        num_labels (`int`): Number of classes.
        opacity (`float`, *optional*, defaults to 0.5): 0 shows the photograph alone, 1 the colours alone.

    Returns:
        `PIL.Image.Image`: In mode RGB.

    Raises:
        ValueError: If the sizes differ.
    """
    if label_map.shape != (photo.height, photo.width):
        raise ValueError(
            f"The label map, {label_map.shape[0]} x {label_map.shape[1]}, must be of the photograph's size, "
            f"{photo.height} x {photo.width} (height x width)."
        )
    colours = label_map_image(label_map, num_labels).convert("RGB")
    return PIL.Image.blend(photo.convert("RGB"), colours, opacity)


def priors_image(
    photo: PIL.Image.Image, priors: Sequence[np.ndarray], num_labels: int, opacity: float = 0.6
) -> PIL.Image.Image:
    """
    The semantic maps of a SeMask backbone laid over the photograph, two in a row, the first stage at the top left.

    Args:
        photo (`PIL.Image.Image`): The photograph.
        priors (`Sequence[np.ndarray]`): Class indices of each stage, of shape `(height, width)`; all of one size.
        num_labels (`int`): Number of classes.
        opacity (`float`, *optional*, defaults to 0.6): See [`overlay_image`].

    Returns:
        `PIL.Image.Image`: In mode RGB.

    Raises:
        ValueError: If there are no maps.
    """
    if not priors:
        raise ValueError("There are no semantic maps to show.")
    height, width = priors[0].shape
    small = photo.resize((width, height), PIL.Image.Resampling.BILINEAR)
    picture = PIL.Image.new("RGB", (2 * width, -(-len(priors) // 2) * height))
    for index, prior in enumerate(priors):
        overlay = overlay_image(small, prior, num_labels, opacity)
        picture.paste(overlay, (index % 2 * width, index // 2 * height))
    return picture
