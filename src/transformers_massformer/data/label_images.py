"""
Label maps as pictures: one writer, 8 bits per pixel with one colour per class; and one reader by stored value,
whatever the bit depth and the colours.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from ..images import ImageSource, opened
from ..models.photo_headers import stored_orientation
from ..utils.files import written_whole
from ..utils.png import write_png
from .label_headers import check_label_format, raw_mode


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
# By what Pillow multiplies greys of 2 and 4 bits per pixel.
GREY_FACTORS = {"2": 85, "4": 17}
# Values listed in an error.
NUM_LISTED = 10
COLOUR_REMEDY = (
    "If colours stand for classes, list them in a labelmap.txt and convert the maps with `massformer import --from "
    "cvat`; else save class ids in grey or with a palette"
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


def eight_bits(label_map: np.ndarray) -> np.ndarray:
    """
    Return a label map in uint8, contiguous.

    Raises:
        ValueError: If it has ids outside 0 to 255, which a conversion would turn into other ids.
    """
    if label_map.dtype != np.uint8 and label_map.size and not (label_map.min() >= 0 and label_map.max() <= 255):
        raise ValueError(
            f"A label map of 8 bits has ids from 0 to 255, not {label_map.min()} to {label_map.max()}. Write pixels "
            "without a class as 255."
        )
    return np.ascontiguousarray(label_map, np.uint8)


def count_ids(label_map: np.ndarray) -> np.ndarray:
    """
    Count the pixels of each class id.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Class ids, 0 to 255.

    Returns:
        `np.ndarray` of shape `(256,)`: Pixels of each id.

    Raises:
        ValueError: If there are other ids.
    """
    # NumPy's `bincount` first makes 64-bit integers of the map, and `unique` sorts it.
    return np.array(PIL.Image.fromarray(eight_bits(label_map)).histogram())


def label_map_image(label_map: np.ndarray, num_labels: int = 256) -> PIL.Image.Image:
    """
    Convert a label map to an image whose pixel values are the class indices and whose palette colours them. Saved as a
    PNG, it has 8 bits per pixel, which other libraries read by value.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Class indices, or 255 for pixels without a class.
        num_labels (`int`, *optional*, defaults to 256): Number of classes, at most 256.

    Returns:
        `PIL.Image.Image`: In mode P.

    Raises:
        ValueError: If there are more classes, or other ids, than 8 bits can number.
    """
    # A PNG has as few bits per pixel as its palette needs, so the palette must be full.
    palette = class_palette(max(num_labels, 256))
    image = PIL.Image.fromarray(eight_bits(label_map))
    image.putpalette(palette.tobytes())
    return image


def write_label_image(label_map: np.ndarray, path: str | Path, palette: bool = True):
    """
    Write a label map as a PNG of 8 bits per pixel, so that the file is either complete or absent.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Class indices, or 255 for pixels without a class.
        path (`str` or `Path`): The file.
        palette (`bool`, *optional*, defaults to `True`):
            Whether a palette colours the classes. Without one the file is plain grey, for libraries that read palettes
            as colours, such as OpenCV.

    Raises:
        ValueError: If it has ids outside 0 to 255.
    """
    image = label_map_image(label_map) if palette else PIL.Image.fromarray(eight_bits(label_map))
    with written_whole(path) as partial:
        write_png(image, partial)


@dataclass(frozen=True)
class Picture:
    """
    A decoded picture and how its file stores it.

    Attributes:
        values (`np.ndarray`): Of shape `(height, width)` or `(height, width, channels)`.
        mode (`str`): Pillow's mode.
        raw (`str`): Pillow's name of the layout in the file, see [`raw_mode`].
        file_format (`str`, *optional*): Pillow's name of the file format.
        orientation (`int`): EXIF orientation, 0 without one.
        frames (`int`): Number of pictures in the file.
        used_colours (`dict[int, tuple[int, ...]]`): Colours of a palette by index, as far as pixels have them.
    """

    values: np.ndarray
    mode: str
    raw: str
    file_format: str | None
    orientation: int
    frames: int
    used_colours: dict[int, tuple[int, ...]]


def used_colours(image: PIL.Image.Image) -> dict[int, tuple[int, ...]]:
    """Return the colours of a palette that pixels have, by index."""
    if image.mode != "P":
        return {}
    palette = image.getpalette("RGB") or []
    found = [index for index, count in enumerate(image.histogram()) if count]
    return {index: tuple(palette[3 * index : 3 * index + 3]) for index in found}


def read_picture(source: ImageSource, name: str) -> Picture:
    """Decode the picture of a label map."""
    with opened(source, name) as image:
        # Decoding discards both.
        raw, frames = raw_mode(image), getattr(image, "n_frames", 1)
        values = np.array(image)
        orientation = stored_orientation(image)
        return Picture(values, image.mode, raw, image.format, orientation, frames, used_colours(image))


def read_label_image(source: ImageSource, name: str) -> tuple[np.ndarray, int]:
    """
    Read the picture of a label map by stored value, as [`read_values`] does.

    Args:
        source (`str`, `os.PathLike` or `PIL.Image.Image`): The file, or an image.
        name (`str`): Name of the picture in errors.

    Returns:
        `tuple[np.ndarray, int]`: The map of shape `(height, width)` in uint8, and its EXIF orientation, 0 without one.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file cannot be decoded, or does not hold class ids from 0 to 255.
    """
    values, orientation = read_values(source, name)
    return as_ids(values, name), orientation


def read_values(source: ImageSource, name: str) -> tuple[np.ndarray, int]:
    """
    Read the stored values of a picture with one value per pixel: bit depth, palette and equal channels change nothing.

    Args:
        source (`str`, `os.PathLike` or `PIL.Image.Image`): The file, or an image.
        name (`str`): Name of the picture in errors.

    Returns:
        `tuple[np.ndarray, int]`: The values of shape `(height, width)`, and the EXIF orientation, 0 without one.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file cannot be decoded, or holds colours.
    """
    picture = read_picture(source, name)
    check_label_format(picture.file_format, name)
    if picture.frames > 1:
        raise ValueError(f"{name} has {picture.frames} pictures. Save the label map alone, as a PNG.")
    if picture.values.ndim == 3:
        values = equal_channel(picture, name)
    elif picture.mode in ("1", "L"):
        values = grey_values(picture, name)
    else:
        values = picture.values
        if picture.mode == "P":
            check_palette_order(picture.used_colours, name)
    return values, picture.orientation


def grey_values(picture: Picture, name: str) -> np.ndarray:
    """Return the stored values of a grey picture of 1 to 8 bits per pixel."""
    if re.search(r";.*I", picture.raw):
        raise ValueError(f"{name} stores inverted greys (white is 0). Save it as a PNG.")
    bits = re.search(r";(\d)", picture.raw)
    factor = GREY_FACTORS.get(bits[1], 1) if bits and picture.mode == "L" else 1
    return picture.values // factor if factor > 1 else picture.values


def equal_channel(picture: Picture, name: str) -> np.ndarray:
    """Return the channel of a picture in colours whose channels are equal and whose alpha is opaque."""
    bands = PIL.Image.getmodebands(picture.mode)
    if picture.mode not in ("RGB", "RGBA", "LA", "RGBX"):
        raise ValueError(f"{name} has mode {picture.mode}, which does not hold class ids. {COLOUR_REMEDY}.")
    if "16" in picture.raw:
        raise ValueError(f"{name} has several channels of 16 bits. Save class ids in grey with 8 bits per pixel.")
    if picture.mode in ("RGBA", "LA"):
        alpha = picture.values[..., -1]
        if alpha.min(initial=255) < 255:
            raise ValueError(
                f"{name} has {np.count_nonzero(alpha < 255)} transparent pixels, whose class is unclear. Fill them "
                "with a class, or with 255 for pixels without one, and save without transparency."
            )
        bands -= 1
    first = picture.values[..., 0]
    for channel in range(1, min(bands, 3)):
        if not np.array_equal(first, picture.values[..., channel]):
            raise ValueError(f"{name} has mode {picture.mode} with colours, not class ids. {COLOUR_REMEDY}.")
    return first


def check_palette_order(colours: Mapping[int, tuple[int, ...]], name: str):
    """
    Refuse a picture in which this package's class colours stand at other indices, as after an image optimizer, which
    renumbers the colours of a palette. Palettes of other programs say nothing about indices.

    Args:
        colours (`Mapping[int, tuple[int, ...]]`): The colours that pixels have, by index.
        name (`str`): Name of the picture in errors.

    Raises:
        ValueError: If all colours are those of MaSS13K's classes, and some are not at their class's index.
    """
    expected: dict[tuple[int, ...], int] = {colour: index for index, colour in enumerate(MASS13K_PALETTE)}
    expected[tuple(class_palette(256)[255].tolist())] = 255
    classes = {index: expected.get(colour) for index, colour in colours.items()}
    moved = {index: label for index, label in classes.items() if index != label}
    if moved and None not in classes.values():
        listed = ", ".join(f"{label} is stored as {index}" for index, label in moved.items())
        raise ValueError(
            f"{name}: the palette has the colours of this package's label maps at other indices ({listed}), as image "
            "optimizers leave them. Use the file as it was before optimization, or convert its colours with "
            "`massformer import --from cvat`."
        )


def as_ids(values: np.ndarray, name: str) -> np.ndarray:
    """Return class ids as uint8; raise a ValueError with the values that are none."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == bool:
        return values.astype(np.uint8)
    wrong = (values < 0) | (values > 255) | (values != np.floor(values))
    if wrong.any():
        found = np.unique(values[wrong])
        listed = ", ".join(f"{value:g}" for value in found[:NUM_LISTED].tolist())
        raise ValueError(
            f"{name} has the values {listed}{', ...' if len(found) > NUM_LISTED else ''}. Class ids are whole numbers "
            "from 0 to 254, and 255 marks pixels without a class. Save class ids, 8 bits per pixel."
        )
    return values.astype(np.uint8)
