"""Read and write label maps: PNG with class indices, or COCO format with a run-length encoded mask per class."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..utils.extras import require
from ..utils.files import written_whole
from ..utils.json_files import write_json
from .formats import AnnotationFormat
from .label_headers import read_annotation
from .label_images import count_ids, write_label_image
from .layout import IGNORE_INDEX


# Run-length encodings consist of six-bit characters, the last without the bit for continuation.
COUNTS = re.compile("[0-o]*[0-O]")
# Characters of a number besides the last that 64 bits hold.
MAX_DIGITS = 11
DAMAGED = "its counts are damaged: they do not encode a mask of this size. Write it again"


def coco_masks() -> Any:
    """Import pycocotools' functions for run-length encoded masks."""
    return require("pycocotools.mask", "coco", "COCO format")


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """
    Encode a mask as COCO's compressed run-length encoding, in types that JSON can hold.

    Args:
        mask (`np.ndarray` of shape `(height, width)`): Boolean.
    """
    encoded = coco_masks().encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def decode_mask(encoded: dict[str, Any]) -> np.ndarray:
    """
    Decode the result of [`encode_mask`].

    Returns:
        `np.ndarray` of shape `(height, width)`: Boolean.
    """
    return coco_masks().decode(encoded).astype(bool)


def coco_annotation(label_map: np.ndarray, labels: Sequence[str], file_name: str) -> dict[str, Any]:
    """
    Convert a label map to COCO format: one image; the classes as categories, whose ids are the class indices; and one
    annotation per class present. Pixels without a class belong to no annotation.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Class indices in uint8, or 255 for pixels without a class.
        labels (`Sequence[str]`): Names of the classes, at most 255.
        file_name (`str`): Name of the photograph.

    Returns:
        `dict`: The annotation, in types that JSON can hold.

    Raises:
        ValueError: If there are more classes than indices, or the map has an index without a class.
    """
    if len(labels) > IGNORE_INDEX:
        raise ValueError(
            f"A label map holds at most {IGNORE_INDEX} classes, since {IGNORE_INDEX} marks pixels without a class; "
            f"{len(labels)} are named."
        )
    found = np.flatnonzero(count_ids(label_map)).tolist()
    unknown = [index for index in found if index >= len(labels) and index != IGNORE_INDEX]
    if unknown:
        raise ValueError(
            f"The label map has the values {unknown}, but only {len(labels)} classes are named. Name all classes."
        )
    masks, annotations = coco_masks(), []
    # Column by column, the order of run-length encodings, once instead of per class.
    columns = np.asfortranarray(label_map)
    for index in found:
        if index == IGNORE_INDEX:
            continue
        mask = encode_mask(columns == index)
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": 1,
                "category_id": index,
                "segmentation": mask,
                "area": int(masks.area(mask)),
                "bbox": masks.toBbox(mask).tolist(),
                "iscrowd": 0,
            }
        )
    height, width = label_map.shape
    return {
        "images": [{"id": 1, "file_name": file_name, "width": width, "height": height}],
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(labels)],
    }


def write_label_map(
    label_map: np.ndarray,
    path: Path,
    labels: Sequence[str],
    file_name: str,
    annotation_format: AnnotationFormat | None = None,
):
    """
    Write a label map, so that the file is either complete or absent: in COCO format if its suffix is `.json`, else as
    a PNG of 8 bits per pixel.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Class indices, or 255 for pixels without a class.
        path (`Path`): The file.
        labels (`Sequence[str]`): Names of the classes.
        file_name (`str`): Name of the photograph.
        annotation_format ([`AnnotationFormat`], *optional*): By default, that of the file's suffix.

    Raises:
        ValueError: If the format cannot hold the label map.
    """
    if annotation_format is None:
        is_json = path.suffix == AnnotationFormat.coco_rle.suffix
        annotation_format = AnnotationFormat.coco_rle if is_json else AnnotationFormat.png
    if annotation_format is not AnnotationFormat.coco_rle:
        write_label_image(label_map, path, palette=annotation_format is not AnnotationFormat.png_grey)
        return
    with written_whole(path) as partial:
        write_json(coco_annotation(label_map, labels, file_name), partial, indent=None)


def run_lengths(counts: str) -> np.ndarray:
    """
    Decode the string of a compressed run-length encoding to its run lengths: of 0, of 1, of 0, ...

    Raises:
        ValueError: If it is not such a string.
    """
    if not COUNTS.fullmatch(counts):
        raise ValueError(DAMAGED)
    digits = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - ord("0")
    # Each number has five bits per character, the lowest first; its last character has no bit for continuation.
    is_last = digits & 32 == 0
    starts = np.concatenate([[0], np.flatnonzero(is_last)[:-1] + 1])
    places = np.arange(len(digits)) - np.repeat(starts, np.diff([*starts, len(digits)]))
    if places.max() > MAX_DIGITS:
        raise ValueError(DAMAGED)
    numbers = np.add.reduceat((digits & 31) << 5 * places, starts)
    signs = digits[is_last] & 16 != 0
    numbers -= np.where(signs, np.int64(1) << 5 * (places[is_last] + 1), 0)
    # From the fourth on, numbers are differences from the last but one.
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def decode_runs(counts: Any, size: tuple[int, int]) -> np.ndarray:
    """
    Decode a run-length encoding after checking it. pycocotools checks hardly anything: it fills what a short encoding
    leaves open with uninitialized memory.

    Args:
        counts (`str` or `list[int]`): Compressed or plain run lengths; runs may have no pixels.
        size (`tuple[int, int]`): Height and width.

    Raises:
        ValueError: If they do not add up to a mask of this size.
    """
    is_plain = isinstance(counts, list) and bool(counts) and all(type(count) is int for count in counts)
    if not is_plain and not isinstance(counts, str):
        raise ValueError("its counts are neither a string nor a list of run lengths. Write it again")
    runs = np.array([min(max(run, -1), 2**62) for run in counts]) if is_plain else run_lengths(counts)
    if runs.min() < 0 or runs.max() > size[0] * size[1] or runs.sum() != size[0] * size[1]:
        raise ValueError(DAMAGED)
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(size, order="F")


def decode_polygons(polygons: list[Any], size: tuple[int, int]) -> np.ndarray:
    """
    Fill polygons as pycocotools does.

    Args:
        polygons (`list[list[float]]`): Each `[x, y, x, y, ...]` in pixels.
        size (`tuple[int, int]`): Height and width.

    Raises:
        ValueError: If one is not a polygon.
    """
    for polygon in polygons:
        is_numbers = isinstance(polygon, list) and all(
            type(value) in (int, float) and math.isfinite(value) for value in polygon
        )
        if not is_numbers or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(
                "one of its polygons is not a list of three or more points, [x, y, x, y, ...]. Write it again"
            )
    masks = coco_masks()
    return masks.decode(masks.merge(masks.frPyObjects(polygons, *size))).astype(bool)


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """
    Decode the segmentation of a COCO annotation: a run-length encoding, compressed or plain, or polygons.

    Args:
        segmentation (`dict` or `list`): The segmentation.
        size (`tuple[int, int]`): Height and width of the image.

    Returns:
        `np.ndarray` of shape `(height, width)`: Boolean, in Fortran's order.

    Raises:
        ValueError: If it does not encode a mask of this size.
    """
    if isinstance(segmentation, list) and segmentation:
        return decode_polygons(segmentation, size)
    if not isinstance(segmentation, dict):
        raise ValueError(
            "its segmentation is neither a run-length encoding, {size, counts}, nor polygons. Write it again"
        )
    if segmentation.get("size") != list(size):
        raise ValueError(
            f"its mask has size {segmentation.get('size')}, the image {list(size)} (height, width). Write it again"
        )
    return decode_runs(segmentation.get("counts"), size)


def read_coco_annotation(path: str | os.PathLike) -> torch.Tensor:
    """
    Read the label map of a photograph's annotation in COCO format, which describes the upright photograph.

    Args:
        path (`str` or `os.PathLike`): The file.

    Returns:
        `torch.Tensor` of shape `(height, width)`: The categories' ids in uint8, 255 for pixels without an
        annotation.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is damaged, or has annotations of unknown or overlapping categories.
    """
    path = Path(path)
    content = read_annotation(path)
    (image,) = content["images"]
    size = image["height"], image["width"]
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > 2 * limit:
        raise ValueError(
            f"{path} is too large to be decoded safely, {size[1]} x {size[0]}. Make it smaller, or, if you trust the "
            "file, raise `PIL.Image.MAX_IMAGE_PIXELS`."
        )
    known = {category["id"]: category["name"] for category in content["categories"]}
    # Column by column, as run-length encodings.
    label_map = np.full(size, IGNORE_INDEX, np.uint8, order="F")
    for number, annotation in enumerate(content["annotations"]):
        category = annotation.get("category_id") if isinstance(annotation, dict) else None
        if type(category) is not int or category not in known:
            raise ValueError(
                f"{path}: annotation {number} has category {category}, which is missing from its `categories`, "
                f"{', '.join(map(str, known))}. Add it there, or remove the annotation."
            )
        if not 0 <= category < IGNORE_INDEX:
            raise ValueError(
                f"{path}: annotation {number} has category {category}. Ids are class indices, from 0 to "
                f"{IGNORE_INDEX - 1}; do not annotate pixels without a class."
            )
        try:
            mask = decode_segmentation(annotation.get("segmentation"), size)
        except ValueError as error:
            raise ValueError(f"{path}: annotation {number} ({known[category]}) cannot be read: {error}.") from error
        clash = mask & (label_map != IGNORE_INDEX) & (label_map != category)
        if clash.any():
            others = ", ".join(known[index] for index in np.unique(label_map[clash]).tolist())
            raise ValueError(
                f"{path}: {known[category]} (annotation {number}) overlaps {others} at {np.count_nonzero(clash)} "
                "pixels. Assign each pixel to one class."
            )
        np.copyto(label_map, np.uint8(category), where=mask)
    # NumPy would take several times as long.
    return torch.from_numpy(label_map).contiguous()
