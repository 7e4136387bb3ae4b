"""Show label maps: overlays on the photo, with a legend."""

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from ..data.label_images import class_palette, count_ids, label_map_image


# Width of the picture relative to the height of a legend's letters.
LEGEND_SHARE = 60


def overlay_image(
    photo: PIL.Image.Image, label_map: np.ndarray, num_labels: int, opacity: float = 0.5
) -> PIL.Image.Image:
    """
    Blend the colours of the classes with a photo.

    Args:
        photo (`PIL.Image.Image`): The photo.
        label_map (`np.ndarray` of shape `(height, width)`): Class indices at the photo's size.
        num_labels (`int`): Number of classes.
        opacity (`float`, *optional*, defaults to 0.5): 0 shows only the photo, 1 only the colours.

    Returns:
        `PIL.Image.Image`: The overlay in mode RGB.

    Raises:
        ValueError: If the sizes differ.
    """
    if label_map.shape != (photo.height, photo.width):
        raise ValueError(
            f"The label map has size {label_map.shape[0]} x {label_map.shape[1]}, the photo {photo.height} x "
            f"{photo.width} (height x width). Use a label map of the photo's size."
        )
    colours = label_map_image(label_map, num_labels).convert("RGB")
    return PIL.Image.blend(photo.convert("RGB"), colours, opacity)


def priors_image(
    photo: PIL.Image.Image, priors: Sequence[np.ndarray], num_labels: int, opacity: float = 0.6
) -> PIL.Image.Image:
    """
    Overlay the semantic maps of a SeMask backbone on the photo: two per row, the first stage at the top left.

    Args:
        photo (`PIL.Image.Image`): The photo.
        priors (`Sequence[np.ndarray]`): Class indices of each stage, all of the same shape `(height, width)`.
        num_labels (`int`): Number of classes.
        opacity (`float`, *optional*, defaults to 0.6): Opacity of the colours, see [`overlay_image`].

    Returns:
        `PIL.Image.Image`: The grid of overlays in mode RGB.

    Raises:
        ValueError: If `priors` is empty.
    """
    if not priors:
        raise ValueError("priors is empty: pass at least one semantic map.")
    height, width = priors[0].shape
    small = photo.resize((width, height), PIL.Image.Resampling.BILINEAR)
    picture = PIL.Image.new("RGB", (2 * width, -(-len(priors) // 2) * height))
    for index, prior in enumerate(priors):
        overlay = overlay_image(small, prior, num_labels, opacity)
        picture.paste(overlay, (index % 2 * width, index // 2 * height))
    return picture


def with_legend(picture: PIL.Image.Image, label_map: np.ndarray, labels: Sequence[str]) -> PIL.Image.Image:
    """
    Add a legend below a picture: colour, name and percentage of each class in the label map, largest first.

    Args:
        picture (`PIL.Image.Image`): The picture, such as an overlay.
        label_map (`np.ndarray` of shape `(height, width)`): Class indices, 255 for pixels without a class.
        labels (`Sequence[str]`): Names of the classes.

    Returns:
        `PIL.Image.Image`: The picture with its legend in mode RGB, as wide as the picture.
    """
    counts = count_ids(label_map)
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
