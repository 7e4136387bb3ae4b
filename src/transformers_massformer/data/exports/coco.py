"""COCO files of instances, for many photographs: polygons and run-length encodings."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import decode_segmentation
from .export import Annotated, Export, Layer, split_of


def read_content(path: Path) -> dict[str, Any]:
    """
    Read a COCO file and check its parts.

    Raises:
        ValueError: If it is not a COCO file of instances.
    """
    try:
        content = json.loads(path.read_bytes())
        images = {image["id"]: image for image in content["images"]}
        sizes = [image[key] for image in images.values() for key in ("width", "height")]
        names = [category["name"] for category in content["categories"]]
        ids = [category["id"] for category in content["categories"]]
        is_valid = isinstance(content["annotations"], list) and all(isinstance(name, str) for name in names)
        is_valid = is_valid and all(isinstance(image["file_name"], str) for image in images.values())
        if not is_valid or not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError("names must be strings, and sizes positive integers")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a COCO file of instances: {error!r}. Export it again.") from error
    image_ids = [image["id"] for image in content["images"]]
    for what, values in (("image id", image_ids), ("category id", ids), ("category name", names)):
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise ValueError(f"{path}: the {what} {twice!r} occurs twice. Rename or remove one.")
    return content


def read_layers(path: Path, image: dict[str, Any], annotations: list[Any], names: dict[Any, str]) -> Iterator[Layer]:
    """
    Decode the annotations of a photograph.

    Raises:
        ValueError: If one cannot be decoded.
    """
    size = image["height"], image["width"]
    for annotation in annotations:
        name = names[annotation["category_id"]]
        try:
            yield name, decode_segmentation(annotation.get("segmentation"), size)
        except ValueError as error:
            raise ValueError(
                f"{path}: annotation {annotation.get('id')} of {image['file_name']} ({name}) cannot be read: {error}."
            ) from error


def read_file(path: Path) -> tuple[list[Annotated], list[str]]:
    """Read the photographs of a COCO file, and its classes in the order of their ids."""
    content = read_content(path)
    names = {category["id"]: category["name"] for category in content["categories"]}
    images = {image["id"]: image for image in content["images"]}
    by_image: dict[Any, list[Any]] = defaultdict(list)
    for number, annotation in enumerate(content["annotations"]):
        values = annotation if isinstance(annotation, dict) else {}
        for key, known, where in (("image_id", images, "images"), ("category_id", names, "categories")):
            if values.get(key) not in known:
                raise ValueError(
                    f"{path}: annotation {number} has the {key} {values.get(key)!r}, which is missing from `{where}`. "
                    "Add it there, or remove the annotation."
                )
        by_image[annotation["image_id"]].append(annotation)
    items = [
        Annotated(
            image["file_name"],
            f"{path}, {image['file_name']}",
            lambda image=image: read_layers(path, image, by_image[image["id"]], names),
            split_of(path.stem),
        )
        for image in content["images"]
    ]
    return items, [names[index] for index in sorted(names)]


def read_coco(source: Path) -> Export:
    """
    Read COCO files of instances.

    Args:
        source (`Path`): A file, or a folder with one or more, such as `annotations/instances_train.json`.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If a file is malformed.
    """
    files = sorted(source.rglob("*.json")) if source.is_dir() else [source]
    if not files:
        raise FileNotFoundError(f"{source} holds no COCO file (.json). Export the annotations as COCO instances.")
    items, classes = [], []
    for path in files:
        found, names = read_file(path)
        items += found
        classes += [name for name in names if name not in classes]
    folder = source if source.is_dir() else source.parent
    return Export(items, classes, folder.parent if not source.is_dir() and folder.name == "annotations" else folder)
