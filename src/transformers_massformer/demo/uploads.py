"""Read untrusted files."""

from pathlib import Path

import PIL.Image

from ..images import allowing_large_pictures, read_photo


# Formats of cameras and photo editors. Some of Pillow's other formats start programs or render vector graphics.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


def check_size(path: Path, name: str, max_megapixels: float):
    """Reject files that are not photos or have too many pixels. Reads only the header, decodes nothing."""
    too_large = f"at most {max_megapixels:g} megapixels are allowed. Resize it."
    try:
        with allowing_large_pictures(), PIL.Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(f"{name} is far too large: {too_large}") from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name} is not a supported image file. Use a JPEG, PNG, WebP, TIFF, BMP or GIF file."
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
