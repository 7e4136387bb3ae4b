"""
Headers of photographs: size and orientation, read without decoding pixels; how label maps lie on them.

A copy travels with the loading script of datasets 3.x, so it imports only Pillow, the standard library and
`photo_headers`, which travels, too.
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import PIL.Image
import PIL.ImageOps
import PIL.PngImagePlugin
import PIL.TiffTags

from ..models.photo_headers import (
    ORIENTATION_TAG,
    PHOTO_FORMATS,
    MissingHeifError,
    open_lazily,
    orientation_in_info,
    quiet_pillow,
    stored_orientation,
    stored_size,
    turned_upright,
)


# Modes that PNG files have; what has another one is written as TIFF.
PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
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
    Read the size and orientation of a photograph.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is none of these, or its header is damaged.
    """
    with (
        naming_faults(path, "photograph", PHOTO_FORMATS),
        open(path, "rb") as file,
        quiet_pillow(),
        open_lazily(file, PHOTO_FORMATS) as image,
    ):
        return Header(*stored_size(image), orientation_of(image, file))


@contextlib.contextmanager
def naming_faults(path: Path, what: str, formats: Iterable[str]) -> Generator[None]:
    """
    Turn what Pillow raises for a header into a ValueError that names the file and the remedy.

    Args:
        path (`Path`): The file.
        what (`str`): What it should be.
        formats (`Iterable[str]`): The formats that it may have.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except MissingHeifError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    except PIL.UnidentifiedImageError as error:
        raise ValueError(
            f"{path} is not a {what} of a known format ({', '.join(formats)}), or it is empty or damaged. Replace it "
            "with an intact copy."
        ) from error
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} is too large: {error} If you trust the file, raise --max-megapixels (in Python: `accept_photos`)."
        ) from error
    except (OSError, SyntaxError, ValueError, LookupError, struct.error) as error:
        raise ValueError(
            f"{path} has a header that cannot be read: {error}. Replace it with an intact copy."
        ) from error


def orientation_of(image: PIL.Image.Image, file: IO[bytes]) -> int:
    """Return the orientation of an opened image, also if its metadata follows the pixels, as it may in a PNG."""
    if image.format != "PNG":
        return stored_orientation(image)
    return orientation_in_info(image.info | png_info(file))


def png_info(file: IO[bytes]) -> dict[Any, Any]:
    """Return the metadata of a PNG, in front of its pixels and behind them, without decoding the pixels."""
    file.seek(8)
    stream = PIL.PngImagePlugin.PngStream(file)
    # Pillow ignores a damaged end, too.
    with contextlib.suppress(SyntaxError, ValueError, OSError, LookupError, struct.error):
        while True:
            kind, place, length = stream.read()
            if kind == b"IEND":
                break
            # Pixels end a reading of Pillow's; it has no reader for unknown chunks.
            with contextlib.suppress(EOFError, AttributeError):
                stream.call(kind, place, length)
            # Behind the data there is a checksum.
            file.seek(place + length + 4)
    return stream.im_info


def rewritten_photo(path: Path) -> bytes | None:
    """
    Return the bytes of a photograph that every decoder turns upright: its pixels, losslessly, in a file without
    metadata but the colour profile. `None` if decoders that honour EXIF (Pillow's `exif_transpose`, as in `datasets`)
    already do so with the file itself.

    Raises:
        ValueError: If the file cannot be decoded.
    """
    try:
        with open(path, "rb") as file, quiet_pillow(), open_lazily(file, PHOTO_FORMATS) as image:
            orientation = orientation_of(image, file)
            info = image.info | (png_info(file) if image.format == "PNG" else {})
            if image.format not in ("TIFF", "HEIF") and turns_alike(info, orientation):
                return None
            if image.format == "TIFF" and orientation in (0, 1) and has_sound_tags(image):
                return None
            image.load()
            upright = turned_upright(image, orientation)
            buffer = io.BytesIO()
            options = {"icc_profile": image.info["icc_profile"]} if image.info.get("icc_profile") else {}
            upright.copy().save(buffer, "PNG" if image.mode in PNG_MODES else "TIFF", **options)
            return buffer.getvalue()
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error) as error:
        raise ValueError(f"{path} cannot be decoded: {error}. Replace it with an intact copy.") from error


def turns_alike(info: dict[Any, Any], orientation: int) -> bool:
    """Return whether Pillow turns an image with this metadata by this orientation, and removes all signs of it."""
    sample = PIL.Image.frombytes("L", (2, 3), bytes(range(6)))
    expected = turned_upright(sample, orientation)
    sample.info = {key: value for key, value in info.items() if key not in ("icc_profile", "transparency")}
    try:
        turned = PIL.ImageOps.exif_transpose(sample)
    except Exception:
        # Damaged tags fail in many ways.
        return False
    same = turned.size == expected.size and turned.tobytes() == expected.tobytes()
    return same and stored_orientation(turned) in (0, 1)


def has_sound_tags(image: PIL.Image.Image) -> bool:
    """Return whether Pillow can read all directories of a TIFF file, as it does when it decodes the file."""
    try:
        exif = image.getexif()
        for kind in PIL.TiffTags.TAGS_V2_GROUPS:
            if kind in exif:
                exif.get_ifd(kind)
    except Exception:
        return False
    return exif.get(ORIENTATION_TAG, 1) in (0, 1)


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
