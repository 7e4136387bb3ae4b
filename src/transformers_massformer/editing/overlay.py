"""Label maps as pictures: with a palette, and laid over their photograph."""

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from ..data.label_images import class_palette, label_map_image


# Letters of a legend have this share of the picture's width.
LEGEND_SHARE = 60


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
