"""Label maps as pictures: with a palette, and laid over their photograph."""

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont


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


# Letters of a legend have this share of the picture's width.
LEGEND_SHARE = 60


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


def with_legend(picture: PIL.Image.Image, label_map: np.ndarray, labels: Sequence[str]) -> PIL.Image.Image:
    """
    A picture above a legend: colour, name and share of the classes that a label map has, the largest first.

    Args:
        picture (`PIL.Image.Image`): An overlay, for example.
        label_map (`np.ndarray` of shape `(height, width)`): Class indices, or 255 where there is none.
        labels (`Sequence[str]`): Names of the classes.

    Returns:
        `PIL.Image.Image`: In mode RGB, as wide as the picture.
    """
    counts = np.bincount(label_map.ravel(), minlength=256)
    present = [index for index in np.argsort(-counts[: len(labels)], kind="stable") if counts[index]]
    size = max(10, picture.width // LEGEND_SHARE)
    font = PIL.ImageFont.load_default(size)
    palette = class_palette(len(labels))
    places, x, y = [], size // 2, picture.height + size // 2
    for index in present:
        text = f"{labels[index]} {100 * counts[index] / label_map.size:.1f} %"
        width = 3 * size + int(font.getlength(text))
        if x + width > picture.width and x > size // 2:
            x, y = size // 2, y + 2 * size
        places.append((index, text, x, y))
        x += width
    legend = PIL.Image.new("RGB", (picture.width, y + 2 * size), "white")
    legend.paste(picture, (0, 0))
    draw = PIL.ImageDraw.Draw(legend)
    for index, text, x, y in places:
        draw.rectangle((x, y, x + size, y + size), fill=tuple(palette[index].tolist()), outline="black")
        draw.text((x + size * 3 // 2, y + size // 2), text, fill="black", font=font, anchor="lm")
    return legend
