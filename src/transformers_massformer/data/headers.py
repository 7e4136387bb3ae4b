"""
Headers of photographs and label maps: size and EXIF orientation, read without decoding pixels.

A copy travels with the loading script of datasets 3.x, so it imports only Pillow and the standard library.
"""

import json
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image


ORIENTATION_TAG = 0x0112
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
    Read the size and orientation of a JPEG, a PNG or an annotation in COCO format. An annotation describes the upright
    photograph. In a PNG, an orientation tag behind the pixels is not found.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is none of these, or its header is damaged.
    """
    if path.suffix.lower() == ".json":
        image = read_annotation(path)["images"][0]
        return Header(image["width"], image["height"], orientation=1)
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
