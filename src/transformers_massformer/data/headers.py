"""
Headers of photographs and label maps: size and EXIF orientation, read without decoding pixels.

A copy travels with the loading script of datasets 3.x, so it imports only Pillow and the standard library.
"""

import contextlib
import json
import struct
import warnings
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image


ORIENTATION_TAG = 0x0112
# Formats of label maps, in Pillow's names, and those that change pixel values when they store them.
LABEL_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "HEIF")
# EXIF orientations that swap width and height, and those that keep the size.
QUARTER_TURNS, SAME_SIZE_TURNS = (5, 6, 7, 8), (2, 3, 4)


@dataclass(frozen=True)
class Header:
    """Stored size of an image in pixels and its EXIF orientation (1: upright; 0: no tag)."""

    width: int
    height: int
    orientation: int = 0

    @property
    def stored_size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def upright_size(self) -> tuple[int, int]:
        return (self.height, self.width) if self.orientation in QUARTER_TURNS else self.stored_size


def read_header(path: Path) -> Header:
    """
    Read the size and orientation of a photograph, a JPEG or PNG. In a PNG, an orientation tag behind the pixels is not
    found.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is none of these, or its header is damaged.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns at half the size that it refuses.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=("JPEG", "PNG")) as image:
                # A PNG's own `getexif` decodes the pixels in search of a tag behind them.
                orientation = PIL.Image.Image.getexif(image).get(ORIENTATION_TAG, 0)
                return Header(*image.size, orientation if orientation in range(1, 9) else 0)
    except FileNotFoundError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise ValueError(
            f"{path} is not a JPEG or PNG, or it is empty or damaged. Replace it with an intact copy."
        ) from error
    except (OSError, SyntaxError, ValueError, struct.error, PIL.Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} has a header that cannot be read: {error}. Replace it with an intact copy."
        ) from error


def raw_mode(image: PIL.Image.Image) -> str:
    """Return how the pixels of an image lie in its file, such as `"L;2"`; empty if unknown, as for decoded images."""
    tile = getattr(image, "tile", None)
    if not tile:
        return ""
    arguments = tile[0][3]
    return str(arguments[0] if isinstance(arguments, tuple | list) and arguments else arguments or "")


def check_label_format(file_format: str | None, name: str):
    """
    Refuse a picture whose format cannot hold class ids.

    Args:
        file_format (`str`, *optional*): Pillow's name of the format.
        name (`str`): Name of the picture in errors.

    Raises:
        ValueError: If the format changes pixel values.
    """
    if file_format in LOSSY_FORMATS:
        raise ValueError(
            f"{name} is a {file_format} file, a format that changes pixel values and with them class ids. Save the "
            "label map from its source as a PNG."
        )


def read_label_header(path: Path) -> Header:
    """
    Read the size and orientation of a label map: a PNG, TIFF, BMP or GIF, or an annotation in COCO format, which
    describes the upright photograph.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is none of these, or its header is damaged.
    """
    if path.suffix.lower() == ".json":
        image = read_annotation(path)["images"][0]
        return Header(image["width"], image["height"], orientation=1)
    with opened_label(path) as image:
        orientation = PIL.Image.Image.getexif(image).get(ORIENTATION_TAG, 0)
        return Header(*image.size, orientation if orientation in range(1, 9) else 0)


@contextlib.contextmanager
def opened_label(path: Path) -> Generator[PIL.Image.Image]:
    """
    Open the picture of a label map without decoding its pixels.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is none of `LABEL_FORMATS`, or its header is damaged.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns at half the size that it refuses.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            image = PIL.Image.open(path)
    except FileNotFoundError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise ValueError(
            f"{path} is not a picture ({', '.join(LABEL_FORMATS)}), or it is empty or damaged. Replace it with an "
            "intact copy."
        ) from error
    except (OSError, SyntaxError, ValueError, struct.error, PIL.Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} has a header that cannot be read: {error}. Replace it with an intact copy."
        ) from error
    with image:
        check_label_format(image.format, str(path))
        if image.format not in LABEL_FORMATS:
            raise ValueError(f"{path} is a {image.format} file. Save the label map as a PNG.")
        yield image


def is_decoded_by_value(path: Path) -> bool:
    """Return whether a label map is a PNG that Pillow alone decodes by value: grey of 1 or 8 bits, or a palette."""
    with opened_label(path) as image:
        return image.format == "PNG" and (image.mode in ("1", "P") or (image.mode == "L" and raw_mode(image) == "L"))


def read_annotation(path: Path) -> dict[str, Any]:
    """
    Read a photograph's annotation in COCO format as JSON, without decoding its masks.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not a valid annotation, or describes several photographs.
    """
    try:
        content = json.loads(path.read_bytes())
        sizes = [side for image in content["images"] for side in (image["width"], image["height"])]
        ids, names = ([category[key] for category in content["categories"]] for key in ("id", "name"))
        if not isinstance(content["annotations"], list) or not all(isinstance(name, str) for name in names):
            raise ValueError("its annotations must be a list, and its category names strings")
        if not all(type(number) is int for number in sizes + ids) or min(sizes, default=1) < 1:
            raise ValueError("its sizes and ids must be integers, and its sizes at least 1")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not an annotation in COCO format: {error!r}. Write it again.") from error
    if len(content["images"]) != 1:
        count = len(content["images"])
        raise ValueError(
            f"{path} describes {count} photographs. Split it into one file per photograph, named like the photograph."
        )
    return content


def label_orientation(image: Header, label: Header) -> int:
    """
    Return the EXIF orientation that turns a label map onto the upright photograph, 1 if it already lies on it. A map
    without a tag that has the photograph's stored size is turned with it; a map of the upright size stays.

    Raises:
        ValueError: If the map has another size.
    """
    if label.upright_size == image.upright_size:
        return 1
    if not label.orientation and label.stored_size == image.stored_size:
        return image.orientation
    sizes = [f"{width} x {height}" for width, height in (label.upright_size, image.upright_size)]
    raise ValueError(f"{sizes[0]} for a photograph of {sizes[1]}")


def is_ambiguous(image: Header, label: Header) -> bool:
    """Return whether the sizes leave open if a map without a tag lies on the stored or the upright photograph."""
    turned = image.orientation in SAME_SIZE_TURNS or (
        image.orientation in QUARTER_TURNS and image.width == image.height
    )
    return turned and not label.orientation


def turned_png(path: Path, orientation: int) -> bytes:
    """Return the bytes of a PNG with an orientation tag added, which every decoder that honours EXIF applies."""
    data = path.read_bytes()
    exif = PIL.Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    # Behind the signature (8 bytes) and the header's chunk: length, kind, data and checksum.
    header_end = 8 + 8 + struct.unpack_from(">I", data, 8)[0] + 4
    length, checksum = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))
    return b"".join((data[:header_end], length, chunk, checksum, data[header_end:]))
