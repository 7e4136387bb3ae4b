"""Read untrusted files."""

from pathlib import Path

import PIL.Image

from ..images import read_photo
from ..models.photo_headers import PHOTO_FORMATS, MissingHeifError, open_lazily


def check_size(path: Path, name: str, max_megapixels: float):
    """Reject files that are not photos or have too many pixels. Reads only the header, decodes nothing."""
    too_large = f"at most {max_megapixels:g} megapixels are allowed. Resize it."
    try:
        with open(path, "rb") as file, open_lazily(file, PHOTO_FORMATS) as image:
            width, height = image.size
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(f"{name} is far too large: {too_large}") from error
    except MissingHeifError as error:
        raise ValueError(f"{name} is a HEIC file, which this server cannot read. Save it as JPEG.") from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name} is not a supported image file. Use a JPEG, PNG, WebP, AVIF, TIFF, JPEG 2000, BMP or GIF file."
        ) from error
    if width * height > max_megapixels * 1e6:
        raise ValueError(f"{name} has {width} x {height} pixels; {too_large}")


def read_upload(path: str | Path, name: str, max_megapixels: float) -> PIL.Image.Image:
    """
    Read an uploaded photo, upright and in RGB, see [`open_image`].

    Args:
        path (`str` or `Path`): Path of the file on the server.
        name (`str`): Name of the uploaded file.
        max_megapixels (`float`): Size in millions of pixels above which the photo is rejected without decoding.

    Raises:
        ValueError: If the file is not a photo, too large or damaged. The message contains only the uploaded name, not
            the path.
    """
    check_size(Path(path), name, max_megapixels)
    return read_photo(path, name)[0]
