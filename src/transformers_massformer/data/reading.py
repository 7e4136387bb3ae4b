"""Photographs and label maps from files: upright, and one on the other."""

import contextlib
import os
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from torchvision import tv_tensors

from .annotations import AnnotationFormat, read_coco_annotation
from .mass13k import ORIENTATION_TAG, QUARTER_TURNS, Header, label_orientation


@contextlib.contextmanager
def allowing_large_pictures():
    """Pillow warns from half of what it refuses; a photograph of that size is welcome here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        yield


def picture_size(image: torch.Tensor | PIL.Image.Image) -> tuple[int, int]:
    """Height and width."""
    if isinstance(image, PIL.Image.Image):
        return image.height, image.width
    return image.shape[-2], image.shape[-1]


@contextlib.contextmanager
def naming(name: str):
    """Turns what decoders raise into errors that name the file."""
    try:
        with allowing_large_pictures():
            yield
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file at {name}.") from None
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} is too large to be decoded safely: {error} Make it smaller, or, if you trust the file, raise "
            "`PIL.Image.MAX_IMAGE_PIXELS`."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be read as an image ({error}). Get it again.") from error


def turned_upright(picture: torch.Tensor, orientation: int) -> torch.Tensor:
    """Applies an EXIF orientation to the last two dimensions."""
    if orientation in QUARTER_TURNS:
        picture = picture.transpose(-1, -2)
    # After the transposition, the stored picture is mirrored in these dimensions.
    dims = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}.get(orientation, ())
    return picture.flip(dims) if dims else picture


def stored_orientation(image: PIL.Image.Image) -> int:
    """The EXIF orientation of a picture whose pixels have not been turned by it; 0 without one."""
    orientation = image.getexif().get(ORIENTATION_TAG, 0)
    return orientation if orientation in range(1, 9) else 0


def read_photo(source: str | os.PathLike | PIL.Image.Image, name: str) -> tuple[PIL.Image.Image, int]:
    """
    A photograph, upright and decoded, and the EXIF orientation that it was turned by.

    Args:
        source (`str`, `os.PathLike` or `PIL.Image.Image`): The file, or an image.
        name (`str`): What errors call it.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it cannot be decoded, or has more than 8 bits.
    """
    with naming(name), contextlib.ExitStack() as stack:
        if not isinstance(source, PIL.Image.Image):
            source = stack.enter_context(PIL.Image.open(source))
        orientation = stored_orientation(source) or 1
        if source.mode.startswith(("I", "F")):
            raise ValueError(f"mode {source.mode}; save it with 8 bits")
        source.load()
        return source if orientation == 1 else PIL.ImageOps.exif_transpose(source), orientation


def read_label(source: str | os.PathLike | PIL.Image.Image, name: str) -> tuple[torch.Tensor, int]:
    """
    A label map as it is stored, `(height, width)` in uint8, and its EXIF orientation, 0 without one.

    Args:
        source (`str`, `os.PathLike` or `PIL.Image.Image`):
            A picture of class indices, or a `.json` in COCO's format, which lies on the upright photograph.
        name (`str`): What errors about pictures call it.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it cannot be decoded, or holds no class indices.
    """
    if not isinstance(source, PIL.Image.Image) and Path(source).suffix.lower() == AnnotationFormat.coco_rle.suffix:
        return read_coco_annotation(source), 1
    with naming(name), contextlib.ExitStack() as stack:
        if not isinstance(source, PIL.Image.Image):
            source = stack.enter_context(PIL.Image.open(source))
        mode, orientation, values = source.mode, stored_orientation(source), np.array(source)
    if mode not in ("L", "P"):
        raise ValueError(f"{name} has mode {mode}, not class indices: save it in grey (L) or with a palette (P).")
    return torch.from_numpy(values), orientation


def lay_on_photo(
    label: torch.Tensor,
    orientation: int,
    photo_size: tuple[int, int],
    photo_orientation: int,
    names: tuple[str, str],
) -> tv_tensors.Mask:
    """
    Turns a label map so that it lies on the upright photograph, by the rule of [`label_orientation`].

    Args:
        label (`torch.Tensor` of shape `(height, width)`): As it is stored.
        orientation (`int`): Its EXIF orientation, 0 without one.
        photo_size (`tuple[int, int]`): Upright height and width.
        photo_orientation (`int`): The EXIF orientation that the photograph was turned by.
        names (`tuple[str, str]`): What errors call the photograph and the label map.

    Raises:
        ValueError: If the label map has another size.
    """
    stored_size = photo_size[::-1] if photo_orientation in QUARTER_TURNS else photo_size
    photo = Header(stored_size[1], stored_size[0], photo_orientation)
    try:
        turn = label_orientation(photo, Header(label.shape[1], label.shape[0], orientation))
    except ValueError as error:
        raise ValueError(
            f"{names[1]} is {error} (width x height, upright). A label map must have the size of its photograph, "
            f"{names[0]}."
        ) from None
    return tv_tensors.Mask(turned_upright(turned_upright(label, orientation), turn).contiguous())


def read_pair(
    image: str | os.PathLike | PIL.Image.Image, label: str | os.PathLike | PIL.Image.Image, names: tuple[str, str]
) -> tuple[PIL.Image.Image, torch.Tensor]:
    """
    A photograph, upright, and the label map that lies on it, `(height, width)` in uint8.

    Args:
        image (`str`, `os.PathLike` or `PIL.Image.Image`): The photograph.
        label (`str`, `os.PathLike` or `PIL.Image.Image`): Its label map.
        names (`tuple[str, str]`): What errors call the two.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file cannot be decoded, or the sizes differ.
    """
    photo, orientation = read_photo(image, names[0])
    return photo, lay_on_photo(*read_label(label, names[1]), picture_size(photo), orientation, names)
