"""Exports of Label Studio: brush masks and polygons in JSON, or a PNG per brush mask."""

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from ...models.photo_headers import PHOTO_SUFFIXES
from ..annotations import decode_polygons
from ..label_images import read_values
from .export import Annotated, Export, Layer


# Results about the whole photograph or about other results.
WITHOUT_REGION = ("choices", "textarea", "taxonomy", "rating", "number", "datetime", "relation")
# From here on, a brush covers a pixel.
COVERED = 128
# Bits of the number of values, of the size of values, and of the sizes of run lengths.
HEAD_BITS, WORD_BITS, SIZE_BITS = 32, 5, 4
DAMAGED = "its run lengths are damaged. Export the project again"
PNG_NAME = re.compile(r"task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-[\w@.]*-(?P<tag>[^-]+)-(?P<name>.+)-\d+")
# What Label Studio puts before the names of uploaded files.
UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")


class BitReader:
    """Reads numbers of any count of bits from bytes; a `ValueError` where they end too early."""

    def __init__(self, data: bytes):
        self.data, self.place = data, 0

    def read(self, count: int) -> int:
        first, self.place = self.place, self.place + count
        if self.place > 8 * len(self.data):
            raise ValueError(DAMAGED)
        window = int.from_bytes(self.data[first // 8 : -(-self.place // 8)], "big")
        return window >> -self.place % 8 & (1 << count) - 1

    def read_many(self, count: int, bits: int) -> np.ndarray:
        """Read numbers of up to 8 bits."""
        first, self.place = self.place, self.place + count * bits
        if self.place > 8 * len(self.data):
            raise ValueError(DAMAGED)
        window = np.frombuffer(self.data[first // 8 : -(-self.place // 8)], np.uint8)
        found = np.unpackbits(window)[first % 8 : first % 8 + count * bits].reshape(count, bits)
        return found @ (1 << np.arange(bits)[::-1])


def decode_brush(rle: Any, size: tuple[int, int]) -> np.ndarray:
    """
    Decode a brush mask: run lengths of RGBA values, of which alpha is the mask (Label Studio's `@thi.ng/rle-pack`).

    Args:
        rle (`list[int]`): Bytes.
        size (`tuple[int, int]`): Height and width.

    Returns:
        `np.ndarray` of shape `(height, width)`: Boolean.

    Raises:
        ValueError: If they do not encode a mask of this size.
    """
    if not isinstance(rle, list) or not all(type(value) is int and 0 <= value < 256 for value in rle):
        raise ValueError(DAMAGED)
    reader = BitReader(bytes(rle))
    count = reader.read(HEAD_BITS)
    if count != 4 * size[0] * size[1]:
        raise ValueError(
            f"its mask has {count} values, but a picture of {size[1]} x {size[0]} (width x height) has "
            f"{4 * size[0] * size[1]}. Export the project again"
        )
    word = reader.read(WORD_BITS) + 1
    sizes = [reader.read(SIZE_BITS) + 1 for _ in range(4)]
    if word > 8:
        raise ValueError(DAMAGED)
    values, place = np.zeros(count, np.uint8), 0
    while place < count:
        is_run = reader.read(1)
        length = reader.read(sizes[reader.read(2)]) + 1
        if place + length > count:
            raise ValueError(DAMAGED)
        values[place : place + length] = reader.read(word) if is_run else reader.read_many(length, word)
        place += length
    return values.reshape(*size, 4)[..., 3] >= COVERED


def read_region(result: dict[str, Any]) -> Layer:
    """
    Decode a region of an annotation.

    Raises:
        ValueError: If it is of another kind, has not exactly one class, or is damaged.
    """
    kind, value = result.get("type"), result.get("value", result)
    size = result.get("original_height", 0), result.get("original_width", 0)
    if not all(type(side) is int and side > 0 for side in size):
        raise ValueError("it has no original_width and original_height")
    if result.get("image_rotation"):
        raise ValueError(f"the picture was rotated by {result['image_rotation']} degrees. Rotate it back in the tool")
    if value.get("format") != "rle" and not isinstance(value.get("points"), list):
        raise ValueError(
            f"{kind} is no mask. Only brush masks and polygons can be converted; remove it from the export"
        )
    names = next((value[key] for key in ("brushlabels", "polygonlabels", "labels") if value.get(key)), [])
    if len(names) != 1:
        raise ValueError(f"it has {len(names)} classes ({', '.join(map(str, names))}). Give each region one class")
    if value.get("format") == "rle":
        return names[0], decode_brush(value.get("rle"), size)
    scale = np.array([size[1], size[0]]) / 100
    polygon = (np.array(value["points"], dtype=float).reshape(-1, 2) * scale).reshape(-1).tolist()
    return names[0], decode_polygons([polygon], size)


def results_of(task: dict[str, Any], origin: str) -> list[dict[str, Any]]:
    """
    Return the regions of a task's annotation, in JSON or in JSON-MIN.

    Raises:
        ValueError: If several people have annotated it.
    """
    if "annotations" not in task:
        lists = [value for value in task.values() if isinstance(value, list)]
        return [each for value in lists for each in value if isinstance(each, dict) and "original_width" in each]
    done = [each for each in task["annotations"] if not each.get("was_cancelled")]
    if len(done) > 1:
        raise ValueError(
            f"{origin} has {len(done)} annotations ({', '.join(str(each.get('id')) for each in done)}). Keep one per "
            "task."
        )
    return [result for each in done for result in each.get("result", []) if result.get("type") not in WITHOUT_REGION]


def photo_of(task: dict[str, Any], origin: str) -> str:
    """Return the file name of a task's photograph, from a path or an address."""
    data = task.get("data", task)
    values = [data["image"]] if isinstance(data.get("image"), str) else list(data.values())
    for value in values:
        if not isinstance(value, str):
            continue
        address = urlsplit(value)
        path = parse_qs(address.query).get("d", [unquote(address.path)])[0]
        if PurePosixPath(path).suffix.lower() in PHOTO_SUFFIXES:
            return PurePosixPath(path).name
    raise ValueError(f"{origin} names no photo ({', '.join(PHOTO_SUFFIXES)}). Export tasks with their data.")


def read_layers(results: list[dict[str, Any]], origin: str) -> Iterator[Layer]:
    """Decode the regions of a photograph; errors name the region."""
    for result in results:
        try:
            yield read_region(result)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{origin}, region {result.get('id')}: {error}.") from error


def read_tasks(path: Path) -> list[dict[str, Any]]:
    """Read the tasks of a JSON or JSON-MIN export."""
    try:
        tasks = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ValueError(f"{path} is not an export of Label Studio: a list of tasks. Export the project as JSON.")
    return tasks


def read_json(path: Path) -> Export:
    """Read a JSON export."""
    items, classes = [], set()
    for number, task in enumerate(read_tasks(path)):
        origin = f"{path}, task {task.get('id', number)}"
        results = results_of(task, origin)
        if not results:
            continue
        for result in results:
            value = result.get("value", result)
            # Also those of boxes and other regions, which are refused where they are read.
            for names in (names for key, names in value.items() if key.endswith("labels")):
                classes |= set(map(str, names or ()))
        items.append(
            Annotated(
                photo_of(task, origin),
                origin,
                lambda results=results, origin=origin: read_layers(results, origin),
            )
        )
    return Export(items, sorted(classes), path.parent)


def read_masks(paths: list[Path]) -> Iterator[Layer]:
    """Read the PNG files of a photograph, in the order of their names."""
    for path in paths:
        match = PNG_NAME.fullmatch(path.stem)
        yield match["name"] if match else "", read_values(path, str(path))[0] >= COVERED


def read_pngs(folder: Path, paths: list[Path]) -> Export:
    """Read an export of PNG files, whose names have the numbers of tasks; a JSON export beside them names photos."""
    photos = {}
    for path in sorted(folder.rglob("*.json")):
        photos |= {str(task["id"]): photo_of(task, f"{path}, task {task['id']}") for task in read_tasks(path)}
    tasks: dict[str, dict[str, list[Path]]] = {}
    classes = set()
    for path in paths:
        match = PNG_NAME.fullmatch(path.stem)
        if match is None:
            raise ValueError(
                f"{path} is not named task-1-annotation-1-by-1-tag-CLASS-0.png, as Label Studio names brush masks. "
                "Remove it, or export the project as JSON."
            )
        classes.add(match["name"])
        tasks.setdefault(match["task"], {}).setdefault(match["annotation"], []).append(path)
    items = []
    for task, annotations in sorted(tasks.items(), key=lambda each: int(each[0])):
        if len(annotations) > 1:
            raise ValueError(
                f"{folder}: task {task} has {len(annotations)} annotations ({', '.join(annotations)}). Keep one."
            )
        (files,) = annotations.values()
        items.append(
            Annotated(
                photos.get(task, f"task-{task}"), f"{folder}, task {task}", lambda files=files: read_masks(files)
            )
        )
    return Export(items, sorted(classes), folder)


def read_label_studio(source: Path) -> Export:
    """
    Read an export: a JSON file, or a folder with one or with the PNG files of brush masks.

    Args:
        source (`Path`): The file or the unpacked folder.

    Raises:
        FileNotFoundError: If there is nothing to read.
        ValueError: If a file is malformed.
    """
    if source.is_file():
        return read_json(source)
    pngs = sorted(path for path in source.rglob("task-*.png"))
    if pngs:
        return read_pngs(source, pngs)
    files = sorted(source.rglob("*.json"))
    if len(files) != 1:
        raise FileNotFoundError(
            f"{source} holds {len(files)} JSON files and no brush masks (task-*.png). Pass the JSON file."
        )
    return read_json(files[0])


def photo_aliases(name: str) -> list[str]:
    """Return the name that a photograph had before it was uploaded."""
    plain = PurePosixPath(name).name
    return [UPLOAD_PREFIX.sub("", plain, count=1)] if UPLOAD_PREFIX.match(plain) else []
