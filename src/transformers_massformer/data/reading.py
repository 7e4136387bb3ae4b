"""Read photographs with their label maps: upright, one lying on the other."""

from pathlib import Path

import PIL.Image
import torch
from torchvision import tv_tensors

from ..images import ImageSource, read_photo
from .annotations import read_coco_annotation
from .formats import AnnotationFormat
from .headers import QUARTER_TURNS, Header, label_orientation
from .label_images import read_label_image
from .mask_values import MaskValues, map_values


def turned_upright(picture: torch.Tensor, orientation: int) -> torch.Tensor:
    """Apply an EXIF orientation to the last two dimensions."""
    if orientation in QUARTER_TURNS:
        picture = picture.transpose(-1, -2)
    # After the transposition, the stored picture is mirrored in these dimensions.
    dims = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}.get(orientation, ())
    return picture.flip(dims) if dims else picture


def read_label(source: ImageSource, name: str, mask_values: MaskValues | None = None) -> tuple[torch.Tensor, int]:
    """
    Read a label map as it lies in its file.

    Args:
        source (`str`, `os.PathLike` or `PIL.Image.Image`):
            A picture of class indices, or a `.json` in COCO format, which describes the upright photograph.
        name (`str`): Name of the picture in errors.
        mask_values (`tuple[tuple[int, int], ...]`, *optional*):
            Class ids of the stored values, see [`parse_mask_values`]. By default, the values are the ids.

    Returns:
        `tuple[torch.Tensor, int]`: The map of shape `(height, width)` in uint8, and its EXIF orientation, 0 without
        one.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file cannot be decoded, does not hold class indices, or has values that are not mapped.
    """
    if not isinstance(source, PIL.Image.Image) and Path(source).suffix.lower() == AnnotationFormat.coco_rle.suffix:
        values, orientation = read_coco_annotation(source).numpy(), 1
    else:
        values, orientation = read_label_image(source, name)
    if mask_values is not None:
        values = map_values(values, mask_values, name)
    return torch.from_numpy(values), orientation


def lay_on_photo(
    label: torch.Tensor,
    orientation: int,
    photo_size: tuple[int, int],
    photo_orientation: int,
    names: tuple[str, str],
) -> tv_tensors.Mask:
    """
    Turn a label map so that it lies on the upright photograph, by the rule of [`label_orientation`].

    Args:
        label (`torch.Tensor` of shape `(height, width)`): The map as it is stored.
        orientation (`int`): Its EXIF orientation, 0 without one.
        photo_size (`tuple[int, int]`): Upright height and width of the photograph.
        photo_orientation (`int`): The EXIF orientation that was applied to the photograph.
        names (`tuple[str, str]`): Names of the photograph and the label map in errors.

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
    image: ImageSource, label: ImageSource, names: tuple[str, str], mask_values: MaskValues | None = None
) -> tuple[PIL.Image.Image, torch.Tensor]:
    """
    Read a photograph as [`open_image`] does, and the label map that lies on it.

    Args:
        image (`str`, `os.PathLike` or `PIL.Image.Image`): The photograph.
        label (`str`, `os.PathLike` or `PIL.Image.Image`): Its label map.
        names (`tuple[str, str]`): Names of the two in errors.
        mask_values (`tuple[tuple[int, int], ...]`, *optional*): See [`read_label`].

    Returns:
        `tuple[PIL.Image.Image, torch.Tensor]`: The photograph in mode RGB, and the map of shape `(height, width)` in
        uint8.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file cannot be decoded, or the sizes differ.
    """
    photo, orientation = read_photo(image, names[0])
    size = photo.height, photo.width
    return photo, lay_on_photo(*read_label(label, names[1], mask_values), size, orientation, names)
