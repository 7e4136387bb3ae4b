"""Tables that map the classes of public data sets to those of MaSS13K. Each is a YAML file in the folder `tables`."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import yaml

from ..layout import IGNORE_INDEX, LABELS


# Key of the classes whose pixels are ignored.
IGNORED = "ignored"
# Marks values that no class has.
UNKNOWN = 254
# An id of a class, or its colour.
Value = int | tuple[int, int, int]


@dataclass(frozen=True)
class Table:
    """
    Classes of a data set.

    Args:
        title (`str`): Name of the data set.
        complete (`tuple[str, ...]`): MaSS13K's classes that are labelled wherever they occur.
        labels (`Mapping[str, int]`): MaSS13K's class, or 255, of each of the owners' classes.
        values (`Mapping[str, Value]`): Value of each of the owners' classes in a label map.
    """

    title: str
    complete: tuple[str, ...]
    labels: Mapping[str, int]
    values: Mapping[str, Value]


def tables_folder() -> Path:
    """Return the folder of the tables."""
    return Path(str(files("transformers_massformer") / "data" / "public" / "tables"))


def read_table(name: str) -> Table:
    """Read the table of a data set, such as `"mapillary-vistas-2.0"`."""
    content = yaml.safe_load((tables_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    labels: dict[str, int] = {}
    values: dict[str, Value] = {}
    for group, label in (*((group, index) for index, group in enumerate(LABELS)), (IGNORED, IGNORE_INDEX)):
        for owners_class, value in content.get(group, {}).items():
            labels[owners_class] = label
            values[owners_class] = tuple(value) if isinstance(value, list) else value
    return Table(content["title"], tuple(content["complete"]), labels, values)


def owners_values(table: Table, names: list[str], source: Path) -> dict[str, Value]:
    """
    Return the values of classes that a file of the data set lists in the order of their ids.

    Raises:
        ValueError: If the file lists other classes than the table.
    """
    differing = sorted(table.labels.keys() ^ set(names))
    if differing or len(names) != len(table.labels):
        raise ValueError(
            f"{source} lists {len(names)} classes, {table.title} has {len(table.labels)}; different: "
            f"{', '.join(differing[:5]) or 'repeated names'}. Get the owners' original file."
        )
    return {name: index for index, name in enumerate(names)}


def pack(value: Value) -> int:
    """Return the index of an id or a colour in a lookup table of 24 bits; -1 becomes the last one."""
    if isinstance(value, int):
        return value & 0xFFFFFF
    red, green, blue = value
    return red << 16 | green << 8 | blue


def build_lookup(table: Table, values: Mapping[str, Value] | None = None) -> np.ndarray:
    """
    Return an array that holds MaSS13K's class at the packed value of each class, and 254 everywhere else.

    Args:
        table ([`Table`]): The classes.
        values (`Mapping[str, Value]`, *optional*): Values that replace those of the table.
    """
    lookup = np.full(1 << 24, UNKNOWN, np.uint8)
    for name, value in (values or table.values).items():
        lookup[pack(value)] = table.labels[name]
    return lookup


def convert_values(values: np.ndarray, lookup: np.ndarray, table: Table, source: Path) -> np.ndarray:
    """
    Convert a label map of the data set.

    Args:
        values (`np.ndarray` of shape `(height, width)` or `(height, width, 3)`): Ids or colours.
        lookup (`np.ndarray`): From [`build_lookup`].
        table ([`Table`]): The classes, for errors.
        source (`Path`): The file, for errors.

    Returns:
        `np.ndarray` of shape `(height, width)`: MaSS13K's classes, and 255 for ignored pixels, in uint8.

    Raises:
        ValueError: If a value belongs to no class.
    """
    packed = values.astype(np.int32)
    if packed.ndim == 3:
        packed = packed[..., 0] << 16 | packed[..., 1] << 8 | packed[..., 2]
    labels = lookup[packed & 0xFFFFFF]
    unknown = labels == UNKNOWN
    if unknown.any():
        found = values[unknown][0]
        name = f"the colour {tuple(found.tolist())}" if values.ndim == 3 else f"the value {found}"
        raise ValueError(
            f"{source} has {unknown.sum()} pixels of an unknown class, such as {name}, which {table.title} does not "
            "have. Replace the file by the owners' original."
        )
    return labels
