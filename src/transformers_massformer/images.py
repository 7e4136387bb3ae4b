"""Read photographs: upright, 8 bits, sRGB, with errors that name the file."""

import contextlib
import os
import struct
import threading
import zlib
from collections.abc import Generator

import PIL.Image
import PIL.ImageFile

from .models.photo_headers import (
    ALLOW_TRUNCATED,
    MAX_MEGAPIXELS,
    UPRIGHT,
    MissingHeifError,
    apply_size_limit,
    open_lazily,
    quiet_pillow,
    stored_orientation,
    turned_upright,
)


ImageSource = str | os.PathLike | PIL.Image.Image

# What decoders raise for damaged files.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    RuntimeError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    struct.error,
    zlib.error,
)
INTACT_COPY = "Replace it with an intact copy."
TRUNCATED_FILES = threading.Lock()


def open_image(path: str | os.PathLike) -> PIL.Image.Image:
    """
    Open a photograph as every command sees it: upright (orientation of EXIF or, without that, of XMP) and in 8-bit
    sRGB (colour profile applied). Transparent parts are composed on white, 16 bits are scaled to 8, and floating-point
    greys range from black 0 to white 1. Of several pictures in a file, the first one counts. Damaged metadata and
    colour profiles are ignored.

    Args:
        path (`str` or `os.PathLike`): The image file.

    Returns:
        `PIL.Image.Image`: In mode RGB, fully decoded, without metadata.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If the file is not an image, is damaged or truncated, or has more pixels than Pillow agrees to
            decode (`2 * PIL.Image.MAX_IMAGE_PIXELS`); see [`accept_photos`].
    """
    return read_photo(path, os.fspath(path))[0]


def count_pixels(path: str | os.PathLike) -> int:
    """Return the number of pixels that a photograph's header states; 0 if it cannot be read."""
    with contextlib.suppress(OSError, ValueError), opened(path, os.fspath(path)) as image:
        return image.width * image.height
    return 0


def accept_photos(max_megapixels: float | None = None, allow_truncated: bool = False):
    """
    Choose what this process and those that it starts accept as photographs.

    Args:
        max_megapixels (`float`, *optional*): Largest size in millions of pixels. Default: Pillow's limit, 179.
        allow_truncated (`bool`, *optional*, defaults to `False`):
            Whether to read photographs that are cut off. The missing part is grey in a JPEG, otherwise black.

    Raises:
        ValueError: If the size is not above 0.
    """
    if max_megapixels is not None:
        if not max_megapixels > 0:
            raise ValueError(f"The largest size of photographs must be above 0 megapixels, got {max_megapixels:g}.")
        os.environ[MAX_MEGAPIXELS] = str(max_megapixels)
        apply_size_limit()
    os.environ[ALLOW_TRUNCATED] = "1" if allow_truncated else ""


def read_photo(source: ImageSource, name: str) -> tuple[PIL.Image.Image, int]:
    """
    Read a photograph as [`open_image`] does, from a file or from an image.

    Args:
        source (`str`, `os.PathLike` or `PIL.Image.Image`): The file, or an image.
        name (`str`): Name of the photograph in errors.

    Returns:
        `tuple[PIL.Image.Image, int]`: The photograph in mode RGB, and the orientation that was applied, 1 if none.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: As for [`open_image`].
    """
    # The module imports transformers, which finding photographs does not need.
    from .models.srgb import to_rgb

    is_file = not isinstance(source, PIL.Image.Image)
    remedy = f"{INTACT_COPY} To read what there is of a cut-off file, pass --allow-truncated." if is_file else ""
    with opened(source, name, remedy) as image:
        stated = stored_orientation(image)
        image = load_pixels(source, image, name) if is_file else image
        image.load()
        # Pillow itself turns a TIFF file that it opened; in a PNG, metadata may follow the pixels.
        orientation = stored_orientation(image)
        upright = turned_upright(image, orientation)
        photo = to_rgb(upright, name)
        if photo is image and is_file:
            photo = image.copy()
        if photo is not image:
            # No metadata shall turn or convert the photograph again.
            photo.info.clear()
        applied = orientation or stated
        return photo, applied if applied in UPRIGHT else 1


def load_pixels(path: str | os.PathLike, image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """Decode the pixels of an opened file; if allowed, those that there are of a truncated one."""
    if not os.environ.get(ALLOW_TRUNCATED):
        image.load()
        return image
    # Pillow's switch is one for all threads: the next file has to wait until it is back.
    with TRUNCATED_FILES:
        try:
            image.load()
        except DAMAGE as error:
            from transformers.utils import logging

            with open(path, "rb") as file, accepting_truncated_files():
                image = open_lazily(file)
                image.load()
            logging.get_logger(__name__).warning_once(f"{name} is cut off; its missing part is blank ({error}).")
    return image


@contextlib.contextmanager
def accepting_truncated_files() -> Generator[None]:
    """Let Pillow fill in the missing part of files."""
    former = PIL.ImageFile.LOAD_TRUNCATED_IMAGES
    # Its type is taken from its default.
    PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True  # ty: ignore[invalid-assignment]
    try:
        yield
    finally:
        PIL.ImageFile.LOAD_TRUNCATED_IMAGES = former


@contextlib.contextmanager
def opened(source: ImageSource, name: str, remedy: str = INTACT_COPY) -> Generator[PIL.Image.Image]:
    """
    Open an image lazily: its header has been read, its pixels have not. Errors of the block name the image.

    Args:
        source (`str`, `os.PathLike` or `PIL.Image.Image`): The file, or an image, which is passed on.
        name (`str`): Name of the image in errors.
        remedy (`str`, *optional*): What to do about a damaged file, for errors.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: As for [`open_image`].
    """
    try:
        with quiet_pillow(), contextlib.ExitStack() as stack:
            if not isinstance(source, PIL.Image.Image):
                # With its path, Pillow 12.3 maps an uncompressed TIFF into memory.
                file = stack.enter_context(open(source, "rb"))
                source = stack.enter_context(open_lazily(file))
            yield source
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no image file at {name}.") from None
    except IsADirectoryError:
        raise ValueError(f"{name} is a folder, not an image file.") from None
    except MissingHeifError as error:
        raise ValueError(f"{name} cannot be read: {error}") from error
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} is too large to be decoded safely: {error} Make it smaller, or, if you trust the file, raise "
            "--max-megapixels (in Python: `accept_photos`)."
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise ValueError(
            f"{name} is not an image file that Pillow can read. Save it as JPEG, or as PNG or TIFF with 8 or 16 bits."
        ) from error
    except DAMAGE as error:
        raise ValueError(f"{name} is damaged or truncated and cannot be decoded ({error}). {remedy}") from error
