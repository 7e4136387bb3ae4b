"""
Headers of label maps: size, orientation and how pixels are stored, read without decoding pixels.

A copy travels with the loading script of datasets 3.x, so it imports only Pillow and the standard library.
"""

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import PIL.Image

from ..models.photo_headers import MissingHeifError, open_lazily, quiet_pillow, stored_size
from .headers import Header, naming_faults, orientation_of


# Formats of label maps, in Pillow's names, and those that change pixel values when they store them.
LABEL_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "HEIF")


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
    with opened_label(path) as (image, file), quiet_pillow():
        return Header(*stored_size(image), orientation_of(image, file))


@contextlib.contextmanager
def opened_label(path: Path) -> Generator[tuple[PIL.Image.Image, IO[bytes]]]:
    """
    Open the picture of a label map without decoding its pixels, and its file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is none of `LABEL_FORMATS`, or its header is damaged.
    """
    with contextlib.ExitStack() as stack:
        with naming_faults(path, "picture", LABEL_FORMATS):
            file = stack.enter_context(open(path, "rb"))
            try:
                image = stack.enter_context(open_lazily(file))
                file_format = image.format
            except MissingHeifError:
                file_format = "HEIF"
        check_label_format(file_format, str(path))
        if image.format not in LABEL_FORMATS:
            raise ValueError(f"{path} is a {image.format} file. Save the label map as a PNG.")
        yield image, file


def is_decoded_by_value(path: Path) -> bool:
    """Return whether a label map is a PNG that Pillow alone decodes by value: grey of 1 or 8 bits, or a palette."""
    with opened_label(path) as (image, _):
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
