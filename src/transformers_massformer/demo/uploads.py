"""Files that strangers send."""

from pathlib import Path

import PIL.Image

from ..images import allowing_large_pictures, read_photo


# What cameras and photo editors write. Pillow's other formats start programs or draw vectors.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


def check_size(path: Path, name: str, max_megapixels: float):
    """Refuses what is no photograph or has too many pixels, by its header; nothing is decoded."""
    too_large = f"at most {max_megapixels:g} megapixels are taken here. Make it smaller."
    try:
        with allowing_large_pictures(), PIL.Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(f"{name} is far too large: {too_large}") from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name} is not a photograph that can be read here. Send a JPEG, PNG, WebP, TIFF, BMP or GIF file."
        ) from error
    if width * height > max_megapixels * 1e6:
        raise ValueError(f"{name} has {width} x {height} pixels; {too_large}")


def read_upload(path: str | Path, name: str, max_megapixels: float) -> PIL.Image.Image:
    """
    A photograph that a stranger has sent, upright and in RGB, see [`open_image`].

    Args:
        path (`str` or `Path`): Where it is.
        name (`str`): What its sender calls it.
        max_megapixels (`float`): Size above which it is not even decoded, in millions of pixels.

    Raises:
        ValueError: If it is no photograph, too large or damaged; the message knows the sender's name only.
    """
    check_size(Path(path), name, max_megapixels)
    return read_photo(path, name)[0]
