# Copyright 2026 The transformers-massformer authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Open files of photographs without decoding pixels: formats, limits, and the orientation that their metadata states.

A copy travels with the loading script of datasets 3.x, so it imports only Pillow and the standard library.
"""

import contextlib
import importlib
import io
import math
import os
import re
import struct
import warnings
from collections.abc import Generator, Iterable, Mapping
from typing import IO, Any

import PIL.Image


# Pillow's other formats are no photographs; some start programs or render vector graphics.
PHOTO_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "TIFF", "WEBP")
PHOTO_SUFFIXES = (
    ".avif",
    ".bmp",
    ".gif",
    ".heic",
    ".heif",
    ".hif",
    ".j2k",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".mpo",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
)
# Variables of the environment, which worker processes inherit.
MAX_MEGAPIXELS, ALLOW_TRUNCATED = "MASSFORMER_MAX_MEGAPIXELS", "MASSFORMER_ALLOW_TRUNCATED"
HEIF_REMEDY = "pip install 'transformers-massformer[heif]'"
# Brands of HEIF files; some of them are also AVIF files.
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1")

ORIENTATION_TAG, XMP_TAG = 0x0112, 700
# How to turn stored pixels upright, by orientation.
UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
# Formats (of `struct`) of a number by its TIFF type; rationals are pairs.
TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I"}
TIFF_TEXT = 2
TIFF_NAMESPACE = rb"""xmlns:([\w.-]+)\s*=\s*["']http://ns\.adobe\.com/tiff/1\.0/["']"""


class MissingHeifError(ValueError):
    """Error for a HEIF photograph where pillow-heif is not installed."""


@contextlib.contextmanager
def quiet_pillow() -> Generator[None]:
    """Silence Pillow's warnings about damaged metadata, and about large images at half the size that it refuses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        yield


def apply_size_limit():
    """Let Pillow accept images up to the number of megapixels in the environment, if any."""
    limit = os.environ.get(MAX_MEGAPIXELS)
    if limit:
        # Pillow refuses images of more than twice its limit.
        PIL.Image.MAX_IMAGE_PIXELS = math.ceil(float(limit) * 1e6 / 2)


def is_heif(start: bytes) -> bool:
    """Return whether a file that starts like this is a HEIF file by its brands."""
    brands = start[16 : struct.unpack_from(">I", start)[0]] if start[4:8] == b"ftyp" else b""
    return start[4:8] == b"ftyp" and any(
        brand in HEIF_BRANDS for brand in (start[8:12], *(brands[i : i + 4] for i in range(0, len(brands), 4)))
    )


def open_without_exif(data: bytes, kind: str) -> PIL.Image.Image:
    """
    Open a JPEG or AVIF file whose metadata makes Pillow give up: the first directory of each piece of it is emptied in
    place. A JPEG gets its own EXIF data back, whose sound tags can still be read.
    """
    emptied = bytearray(data)
    for match in re.finditer(rb"II\*\0|MM\0\*", data):
        order = "<" if match[0][:1] == b"I" else ">"
        with contextlib.suppress(struct.error):
            first = match.start() + struct.unpack_from(f"{order}I", data, match.start() + 4)[0]
            struct.pack_into(f"{order}H", emptied, first, 0)
    image = PIL.Image.open(io.BytesIO(emptied), formats=[kind])
    exif = image.info.get("exif", b"")
    place = emptied.find(exif)
    if kind == "JPEG" and exif and place >= 0:
        image.info["exif"] = data[place : place + len(exif)]
    return image


def open_lazily(file: IO[bytes], formats: Iterable[str] | None = None) -> PIL.Image.Image:
    """
    Open an image: its header has been read, its pixels have not.

    Args:
        file (`IO[bytes]`): The file, opened for reading; it must stay open until the pixels have been decoded.
        formats (`Iterable[str]`, *optional*): The formats to accept. Default: all of Pillow's.

    Raises:
        MissingHeifError: If the file is a HEIF file and pillow-heif is not installed.
        PIL.UnidentifiedImageError: If the file has none of the formats.
        PIL.Image.DecompressionBombError: If the image is larger than Pillow's limit.
    """
    apply_size_limit()
    start = file.read(64)
    file.seek(0)
    with quiet_pillow():
        PIL.Image.init()
        known = [name for name in formats if name in PIL.Image.OPEN] if formats is not None else None
        try:
            image = PIL.Image.open(file, formats=known)
        except PIL.UnidentifiedImageError:
            file.seek(0)
            image = open_otherwise(file, start, formats)
    if hasattr(image, "tag_v2"):
        # Pillow turns TIFF files while it decodes them, by rules of its own, and states their upright size before.
        vars(image)["load_end"] = lambda: None
        vars(image)["_size"] = stored_size(image)
    return image


def open_otherwise(file: IO[bytes], start: bytes, formats: Iterable[str] | None) -> PIL.Image.Image:
    """Open an image that Pillow does not recognise: HEIF, or a file with metadata so damaged that Pillow gives up."""
    if start[4:12] in (b"ftypavif", b"ftypavis"):
        return open_without_exif(file.read(), "AVIF")
    if is_heif(start) and (formats is None or "HEIF" in formats):
        try:
            pillow_heif = importlib.import_module("pillow_heif")
        except ImportError as error:
            raise MissingHeifError(f"it is a HEIC/HEIF file, which needs pillow-heif: {HEIF_REMEDY}") from error
        pillow_heif.register_heif_opener()
        return PIL.Image.open(file, formats=["HEIF"])
    if start.startswith(b"\xff\xd8\xff"):
        return open_without_exif(file.read(), "JPEG")
    raise PIL.UnidentifiedImageError("no format of Pillow fits")


def valid_orientation(value: Any) -> int:
    """Return a tag's value if it is an orientation (1 to 8), else 0."""
    with contextlib.suppress(TypeError, ValueError, ArithmeticError):
        while isinstance(value, tuple) and len(value) == 1:
            value = value[0]
        if isinstance(value, bytes) and len(value) == 1:
            value = value[0]
        if isinstance(value, str):
            value = int(value.strip("\0 "))
        if value in range(1, 9):
            return int(value)
    return 0


def orientation_in_exif(data: bytes) -> int:
    """Return the orientation in EXIF data, whatever the type in which it is stored; 0 without a valid one."""
    while data.startswith(b"Exif\0\0"):
        data = data[6:]
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return 0
    with contextlib.suppress(struct.error):
        first = struct.unpack_from(f"{order}I", data, 4)[0]
        for index in range(struct.unpack_from(f"{order}H", data, first)[0]):
            entry = first + 2 + 12 * index
            tag, kind, count = struct.unpack_from(f"{order}HHI", data, entry)
            if tag == ORIENTATION_TAG:
                return valid_orientation(tiff_value(data, order, kind, count, entry + 8))
    return 0


def tiff_value(data: bytes, order: str, kind: int, count: int, place: int) -> Any:
    """Return the value of a TIFF entry, whose four bytes `place` hold it or where it is; `None` if it is damaged."""
    number = TIFF_NUMBERS.get(kind)
    if kind == TIFF_TEXT and 0 < count <= 16:
        start = place if count <= 4 else struct.unpack_from(f"{order}I", data, place)[0]
        return data[start : start + count].split(b"\0")[0].decode("latin-1")
    if number is None or count != 1:
        return None
    size = struct.calcsize(f"{order}{number}")
    start = place if size <= 4 else struct.unpack_from(f"{order}I", data, place)[0]
    values = struct.unpack_from(f"{order}{number}", data, start)
    if len(values) == 2:
        return values[0] / values[1] if values[1] else None
    return values[0]


def orientation_in_xmp(data: bytes) -> int:
    """Return the orientation in XMP data, an attribute or an element; 0 without a valid one."""
    # In UTF-16 and UTF-32, ASCII characters have zero bytes around them.
    data = data.replace(b"\0", b"")
    prefixes = {re.escape(prefix) for prefix in re.findall(TIFF_NAMESPACE, data)} | {b"tiff"}
    name = rb"(?:" + b"|".join(sorted(prefixes)) + rb"):Orientation"
    match = re.search(name + rb"""\s*=\s*["']\s*([1-8])\s*["']|<""" + name + rb"[^>]*>\s*([1-8])\s*<", data)
    return int(match[1] or match[2]) if match else 0


def orientation_in_info(info: Mapping[Any, Any]) -> int:
    """Return the orientation in the metadata of an image: of EXIF or, if that has none, of XMP; 0 without one."""
    exif, text = info.get("exif"), info.get("Raw profile type exif")
    if not isinstance(exif, bytes) and isinstance(text, str):
        with contextlib.suppress(ValueError):
            exif = bytes.fromhex("".join(text.split("\n")[3:]))
    found = orientation_in_exif(exif) if isinstance(exif, bytes) else 0
    for key in ("XML:com.adobe.xmp", "xmp"):
        xmp = info.get(key)
        xmp = b"".join(part for part in xmp if isinstance(part, bytes)) if isinstance(xmp, tuple) else xmp
        xmp = xmp.encode(errors="replace") if isinstance(xmp, str) else xmp
        found = found or (orientation_in_xmp(xmp) if isinstance(xmp, bytes) else 0)
    return found


def stored_orientation(image: PIL.Image.Image) -> int:
    """
    Return the orientation that an image's metadata states for its pixels (1 to 8), 0 without one.

    Args:
        image (`PIL.Image.Image`): The image; metadata behind its pixels, as in a PNG, is seen once they are loaded.
    """
    found, tags = 0, getattr(image, "tag_v2", None)
    if tags is not None:
        # Values are decoded when they are asked for.
        with contextlib.suppress(Exception), quiet_pillow():
            found = valid_orientation(tags.get(ORIENTATION_TAG))
        if not found and "xmp" not in image.info:
            with contextlib.suppress(Exception), quiet_pillow():
                found = orientation_in_info({"xmp": tags.get(XMP_TAG)})
    return found or orientation_in_info(image.info)


def stored_size(image: PIL.Image.Image) -> tuple[int, int]:
    """Return the width and height of an image's pixels as they are stored."""
    tags = getattr(image, "tag_v2", None)
    # Pillow states the upright size of a TIFF file.
    return image.size if tags is None else (tags[256], tags[257])


def turned_upright(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """Return a loaded image turned by an orientation, without metadata that would turn it again; itself if upright."""
    if orientation not in UPRIGHT:
        return image
    turned = image.transpose(UPRIGHT[orientation])
    for key in ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"):
        turned.info.pop(key, None)
    return turned
