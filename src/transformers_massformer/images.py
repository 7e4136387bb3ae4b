"""Find photographs and read them: upright, 8 bits, RGB, with errors that name the file."""

import contextlib
import glob
import itertools
import os
import struct
import warnings
from collections.abc import Generator
from pathlib import Path

import PIL.ExifTags
import PIL.Image


PHOTO_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# How to turn stored pixels upright, by EXIF orientation.
UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}

ImageSource = str | os.PathLike | PIL.Image.Image


def open_image(path: str | os.PathLike) -> PIL.Image.Image:
    """
    Open a photograph upright (EXIF orientation applied), in 8-bit RGB. Transparent parts are composed on white, 16
    bits are scaled to 8, and floating-point greys range from black 0 to white 1.

    Args:
        path (`str` or `os.PathLike`): The image file.

    Returns:
        `PIL.Image.Image`: In mode RGB, fully decoded.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If the file is not an image, is damaged or truncated, or has more pixels than Pillow agrees to
            decode (`2 * PIL.Image.MAX_IMAGE_PIXELS`).
    """
    return read_photo(path, os.fspath(path))[0]


def read_photo(source: ImageSource, name: str) -> tuple[PIL.Image.Image, int]:
    """
    Read a photograph as [`open_image`] does, from a file or from an image.

    Args:
        source (`str`, `os.PathLike` or `PIL.Image.Image`): The file, or an image.
        name (`str`): Name of the photograph in errors.

    Returns:
        `tuple[PIL.Image.Image, int]`: The photograph in mode RGB, and the EXIF orientation that was applied.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: As for [`open_image`].
    """
    # The module needs torchvision, which finding photographs does not.
    from .models.image_processing_massformer import to_rgb

    with opened(source, name) as image:
        image.load()
        orientation = stored_orientation(image)
        photo = to_rgb(image)
        if orientation in UPRIGHT:
            photo = photo.transpose(UPRIGHT[orientation])
            # Metadata would turn the photograph again when it is read as an image.
            photo.info.clear()
        return photo, orientation or 1


@contextlib.contextmanager
def opened(source: ImageSource, name: str) -> Generator[PIL.Image.Image]:
    """
    Open an image lazily: its header has been read, its pixels have not. Errors of the block name the image.

    Args:
        source (`str`, `os.PathLike` or `PIL.Image.Image`): The file, or an image, which is passed on.
        name (`str`): Name of the image in errors.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: As for [`open_image`].
    """
    try:
        with allowing_large_pictures(), contextlib.ExitStack() as stack:
            if not isinstance(source, PIL.Image.Image):
                # With its path, Pillow 12.3 maps an uncompressed TIFF into memory and turns it twice.
                file = stack.enter_context(open(source, "rb"))
                source = stack.enter_context(PIL.Image.open(file))
            yield source
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no image file at {name}.") from None
    except IsADirectoryError:
        raise ValueError(f"{name} is a folder, not an image file.") from None
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} is too large to be decoded safely: {error} Make it smaller, or, if you trust the file, raise "
            "`PIL.Image.MAX_IMAGE_PIXELS`."
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"{name} is not an image file that Pillow can read.") from error
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error) as error:
        raise ValueError(
            f"{name} is damaged or truncated and cannot be decoded ({error}). Replace it with an intact copy."
        ) from error


@contextlib.contextmanager
def allowing_large_pictures() -> Generator[None]:
    """Silence Pillow's warning about large images, which it issues at half the size that it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        yield


def stored_orientation(image: PIL.Image.Image) -> int:
    """Return the EXIF orientation of an image whose pixels have not been turned by it, 0 without one."""
    orientation = image.getexif().get(PIL.ExifTags.Base.Orientation, 0)
    return orientation if orientation in range(1, 9) else 0


def find_photos(argument: str, output: Path) -> list[tuple[Path, Path]]:
    """
    List the photographs that a command's argument names. Results of an earlier run, in a folder among the photographs,
    are left out.

    Args:
        argument (`str`): A file, a folder, which is searched recursively, or a glob.
        output (`Path`): The folder for results.

    Returns:
        `list[tuple[Path, Path]]`: Each photograph, and its path relative to the folder given.

    Raises:
        FileNotFoundError: If the argument names no photographs.
        ValueError: If the folder is also the output.
    """
    path = Path(argument)
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        if path.resolve() == output.resolve():
            raise ValueError(f"{path} holds the photographs; choose another folder for the results with --output.")
        root, found = path, sorted(path.rglob("*"))
    elif glob.has_magic(argument):
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
        root, found = Path(*fixed), sorted(Path(name) for name in glob.glob(argument, recursive=True))
    else:
        raise FileNotFoundError(f"There is no file or folder {argument}.")
    results = output.resolve() if root.resolve() in output.resolve().parents else None
    photos = [
        photo
        for photo in found
        if photo.is_file() and photo.suffix.lower() in PHOTO_SUFFIXES and results not in photo.resolve().parents
    ]
    if not photos:
        raise FileNotFoundError(f"{argument} names no photographs ({', '.join(PHOTO_SUFFIXES)}).")
    return [(photo, photo.relative_to(root)) for photo in photos]
