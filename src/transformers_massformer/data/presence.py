"""Which classes the label maps of a data set have, from as few of them as are needed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .layout import IGNORE_INDEX, Pair
from .reading import read_label


# Label maps that are read in search of rare classes.
SAMPLE = 64
# Steps of the golden ratio spread evenly, however many there are.
GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass
class Presence:
    """
    Ids found in label maps.

    Attributes:
        ids (`set[int]`): Class ids, and 255.
        num_read (`int`), `num_maps` (`int`): Label maps that were read, and all of them.
        example (`str`): Name of a label map.
        is_mapped (`bool`): Whether an option says what the stored values mean.
    """

    ids: set[int] = field(default_factory=set)
    num_read: int = 0
    num_maps: int = 0
    example: str = ""
    is_mapped: bool = False

    @property
    def classes(self) -> set[int]:
        return self.ids - {IGNORE_INDEX}


def ids_of(label_map: np.ndarray) -> set[int]:
    """Return the ids in a label map."""
    return set(np.flatnonzero(np.bincount(label_map.reshape(-1), minlength=256)).tolist())


def spread(count: int) -> Iterator[int]:
    """Yield the numbers below `count` in an order whose beginnings are spread evenly."""
    seen = set()
    for step in range(count):
        number = int((step * GOLDEN_RATIO) % 1 * count)
        while number in seen:
            number = (number + 1) % count
        seen.add(number)
        yield number


def label_sources(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Convert pairs to items of [`find_presence`]."""
    return [{"label": pair.label, "mask_values": pair.mask_values} for pair in pairs]


def find_presence(items: Sequence[Mapping[str, Any]], num_labels: int, sample: int = SAMPLE) -> Presence:
    """
    Read label maps, evenly spread, until all classes are found, or at least `sample` of them and a class besides the
    first. If there is none, all are read.

    Args:
        items (`Sequence[Mapping]`): Each with a `"label"`, the path of a label map, and optionally `"mask_values"`.
        num_labels (`int`): Number of classes.
        sample (`int`, *optional*, defaults to 64): Number of label maps to read in search of rare classes.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file cannot be read.
    """
    found = Presence(num_maps=len(items))
    for index in spread(len(items)):
        item = items[index]
        mask_values = item.get("mask_values")
        label, _ = read_label(item["label"], str(item["label"]), mask_values)
        found.ids |= ids_of(label.numpy())
        found.num_read += 1
        found.example, found.is_mapped = str(item["label"]), mask_values is not None
        known = {index for index in found.classes if index < num_labels}
        if len(known) == num_labels or (found.num_read >= sample and found.classes - {0}):
            break
    return found


def describe_convention(found: Presence, labels: Sequence[str]) -> str | None:
    """
    Return why label maps cannot mean what their values say, with the remedy; `None` if they can.

    Args:
        found ([`Presence`]): The ids of a complete split.
        labels (`Sequence[str]`): Names of the classes in the order of ids.
    """
    if not found.ids:
        return None
    example = f"such as {found.example}"
    second = labels[1] if len(labels) > 1 else "CLASS"
    if not found.classes:
        remedy = f"If 255 means a class, pass --mask-values 255:{second}. Else label some pixels."
        return f"no pixel has a class: every value is 255, which marks pixels without one, {example}. {remedy}"
    if found.is_mapped or len(labels) == 1 or found.classes != {0}:
        return None
    if IGNORE_INDEX in found.ids:
        return (
            f"all values are 0 or 255, {example}. 255 marks pixels without a class, which would leave {labels[0]} "
            f"alone. If 255 means a class, pass --mask-values 0:{labels[0]},255:{second}; if not, pass --mask-values "
            f"0:{labels[0]},255:ignore"
        )
    return (
        f"all values are 0, {labels[0]}, {example}. Write the label maps again with the other classes; if there are "
        f"none, pass --mask-values 0:{labels[0]}"
    )


def check_convention(found: Presence, labels: Sequence[str], what: str):
    """
    Refuse label maps whose values cannot mean what they say.

    Args:
        found ([`Presence`]): The ids of a complete split.
        labels (`Sequence[str]`): Names of the classes in the order of ids.
        what (`str`): Name of the split in errors.

    Raises:
        ValueError: If no pixel has a class, or all have the first one while others are marked as ignored.
    """
    text = describe_convention(found, labels)
    if text is not None:
        raise ValueError(f"The label maps of {what} have no class to tell apart: {text.rstrip('.')}.")


def describe_absent(found: Presence, labels: Sequence[str]) -> str | None:
    """Return a warning that names the classes without a pixel in the label maps that were read, or `None`."""
    absent = absent_classes(found, labels)
    if not absent:
        return None
    where = f"any of the {found.num_maps} label maps of the training split"
    if found.num_read < found.num_maps:
        where = f"{found.num_read} of the {found.num_maps} label maps, evenly spread (`massformer stats` counts all)"
    return (
        f"No pixel of {', '.join(absent)} in {where}: the model cannot learn {'it' if len(absent) == 1 else 'them'}. "
        "Check the names and the order of the classes, and that the label maps count from 0."
    )


def absent_classes(found: Presence, labels: Sequence[str]) -> list[str]:
    """Return the names of the classes without a pixel."""
    return [label for index, label in enumerate(labels) if index not in found.ids]
