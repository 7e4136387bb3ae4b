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


# Width of the picture relative to the height of a legend's letters.
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
