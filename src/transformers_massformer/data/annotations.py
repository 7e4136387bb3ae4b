"""Label maps as files: PNG with the class indices, or COCO's format with a run-length encoded mask of each class."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from pycocotools import mask as coco

from ..editing.overlay import label_map_image
from ..utils.files import written_whole
from .formats import AnnotationFormat
from .mass13k import IGNORE_INDEX, read_annotation


# What run-length encodings are made of: characters of six bits, the last without the bit that says that more follows.
COUNTS = re.compile("[0-o]*[0-O]")


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """
    A mask as COCO's compressed run-length encoding, of what JSON can hold.

    Args:
        mask (`np.ndarray` of shape `(height, width)`): Boolean.
    """
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def decode_mask(encoded: dict[str, Any]) -> np.ndarray:
    """
    The mask again.

    Returns:
        `np.ndarray` of shape `(height, width)`: Boolean.
    """
    return coco.decode(encoded).astype(bool)


def coco_annotation(label_map: np.ndarray, labels: Sequence[str], file_name: str) -> dict[str, Any]:
    """
    A label map in COCO's format: one image; the classes as categories, whose ids are the class indices; and one
    annotation for each class that is there. Pixels of no class are in none.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Class indices in uint8, or 255 where there is none.
        labels (`Sequence[str]`): Names of the classes, at most 255.
        file_name (`str`): Name of the photograph.

    Returns:
        `dict`: Of what JSON can hold.

    Raises:
        ValueError: If there are more classes than indices, or the map has an index of none.
    """
    if len(labels) > IGNORE_INDEX:
        raise ValueError(
            f"A label map holds {IGNORE_INDEX} classes, since {IGNORE_INDEX} means none; got {len(labels)}."
        )
    found = np.flatnonzero(PIL.Image.fromarray(np.ascontiguousarray(label_map, np.uint8)).histogram()).tolist()
    unknown = [index for index in found if index >= len(labels) and index != IGNORE_INDEX]
    if unknown:
        raise ValueError(f"The label map has {unknown}, which are none of the {len(labels)} classes. Name them all.")
    annotations = []
    # In the order of run-length encodings, column after column, once instead of for each class.
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
                "area": int(coco.area(mask)),
                "bbox": coco.toBbox(mask).tolist(),
                "iscrowd": 0,
            }
        )
    height, width = label_map.shape
    return {
        "images": [{"id": 1, "file_name": file_name, "width": width, "height": height}],
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(labels)],
    }


def write_label_map(label_map: np.ndarray, path: Path, labels: Sequence[str], file_name: str):
    """
    Writes a label map that is either whole or absent: in COCO's format if the file is to end in `.json`, else as a PNG
    with a palette.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Class indices, or 255 where there is none.
        path (`Path`): The file.
        labels (`Sequence[str]`): Names of the classes.
        file_name (`str`): Name of the photograph.

    Raises:
        ValueError: If it does not fit the format.
    """
    with written_whole(path) as partial:
        if path.suffix == AnnotationFormat.coco_rle.suffix:
            partial.write_text(json.dumps(coco_annotation(label_map, labels, file_name)) + "\n")
        else:
            label_map_image(label_map, len(labels)).save(partial, format="PNG")


def checked_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """
    A mask whose encoding is as it should be. The library checks hardly anything: of what a short encoding leaves open
    it makes whatever was in memory.

    Raises:
        ValueError: If it is no encoding of a mask of this height and width.
    """
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), str):
        raise ValueError(
            "its segmentation is no compressed run-length encoding, {size, counts}. Make it one with pycocotools.mask "
            "(frPyObjects, merge, encode)"
        )
    if segmentation.get("size") != list(size):
        raise ValueError(
            f"its mask has size {segmentation.get('size')}, the image {list(size)} (height, width). Write it again"
        )
    if COUNTS.fullmatch(segmentation["counts"]):
        try:
            mask = decode_mask(segmentation)
        except ValueError:
            mask = None
        if mask is not None and encode_mask(mask)["counts"] == segmentation["counts"]:
            return mask
    raise ValueError("its counts are damaged: they encode no mask of this size. Write it again")


def read_coco_annotation(path: str | os.PathLike) -> torch.Tensor:
    """
    The label map of a photograph's annotation in COCO's format, which lies on the upright photograph.

    Args:
        path (`str` or `os.PathLike`): The file.

    Returns:
        `torch.Tensor` of shape `(height, width)`: The categories' ids in uint8, 255 where there is no annotation.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is damaged, has annotations of an unknown category, or of two at one place.
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
    # Column after column, as well.
    label_map = np.full(size, IGNORE_INDEX, np.uint8, order="F")
    for number, annotation in enumerate(content["annotations"]):
        category = annotation.get("category_id") if isinstance(annotation, dict) else None
        if type(category) is not int or category not in known:
            raise ValueError(
                f"{path}: annotation {number} is of category {category}, which is none of its `categories`, "
                f"{', '.join(map(str, known))}. Add it there, or remove the annotation."
            )
        if not 0 <= category < IGNORE_INDEX:
            raise ValueError(
                f"{path}: annotation {number} is of category {category}. Ids are class indices, from 0 to "
                f"{IGNORE_INDEX - 1}; leave pixels of no class without an annotation."
            )
        try:
            mask = checked_mask(annotation.get("segmentation"), size)
        except ValueError as error:
            raise ValueError(f"{path}: annotation {number} ({known[category]}) cannot be read: {error}.") from error
        clash = mask & (label_map != IGNORE_INDEX) & (label_map != category)
        if clash.any():
            others = ", ".join(known[index] for index in np.unique(label_map[clash]).tolist())
            raise ValueError(
                f"{path}: {known[category]} (annotation {number}) lies over {others} at {np.count_nonzero(clash)} "
                "pixels. Give each pixel to one class."
            )
        np.copyto(label_map, np.uint8(category), where=mask)
    # NumPy takes several times as long for it.
    return torch.from_numpy(label_map).contiguous()
