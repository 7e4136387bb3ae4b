"""What the stored values of label maps mean: options that map them to classes, and hints on usual conventions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..utils.names import find_name, list_names, name_key
from .layout import IGNORE_INDEX, Split


# Stored values and the class id of each.
MaskValues = tuple[tuple[int, int], ...]

# Targets for pixels without a class.
IGNORED = ("ignore", "ignored")
# Values listed in an error.
NUM_LISTED = 10


def parse_mask_values(text: str | None, labels: Sequence[str]) -> MaskValues | None:
    """
    Parse an option such as `"0:background,255:object"`.

    Args:
        text (`str`, *optional*):
            Stored values with the name or id of the class that each means, or `ignore` for pixels without a class.
        labels (`Sequence[str]`): Names of the classes in the order of ids.

    Returns:
        `tuple[tuple[int, int], ...]`: The values and their class ids; `None` without a text.

    Raises:
        ValueError: If the text is malformed, a value occurs twice, or a class is unknown.
    """
    if text is None:
        return None
    found: dict[int, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})\s*:\s*(.*\S)\s*", part)
        if match is None or int(match[1]) > IGNORE_INDEX:
            raise ValueError(
                f"--mask-values {text!r}: {part!r} is not VALUE:CLASS. Write values from 0 to 255 with the names of "
                "their classes, such as 0:background,255:object."
            )
        value = int(match[1])
        if value in found:
            raise ValueError(f"--mask-values {text!r} gives the value {value} twice. Remove one.")
        found[value] = class_of(match[2], labels, text)
    return tuple(found.items())


def class_of(name: str, labels: Sequence[str], text: str) -> int:
    """Return the id of a class given by name or id, 255 for `ignore`."""
    index = find_name(name, labels)
    if index is not None:
        return index
    if name_key(name) in IGNORED:
        return IGNORE_INDEX
    if name.isdecimal() and int(name) < len(labels):
        return int(name)
    raise ValueError(
        f"--mask-values {text!r} names the unknown class {name!r}; the classes are {list_names(labels)}. Name the "
        "classes of the data with --labels, or write `ignore` for pixels without a class."
    )


def map_values(label_map: np.ndarray, mask_values: MaskValues, name: str) -> np.ndarray:
    """
    Replace the stored values of a label map by class ids.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Stored values, uint8.
        mask_values (`tuple[tuple[int, int], ...]`): From [`parse_mask_values`].
        name (`str`): Name of the label map in errors.

    Raises:
        ValueError: If the label map has a value that is not mapped.
    """
    table = np.full(256, -1)
    for value, index in mask_values:
        table[value] = index
    mapped = table[label_map]
    if mapped.min(initial=0) < 0:
        unknown = np.unique(label_map[mapped < 0]).tolist()
        raise ValueError(
            f"{name} has the values {listed(unknown)}, which --mask-values does not map. Add them with their classes, "
            f"or as {unknown[0]}:ignore."
        )
    return mapped.astype(np.uint8)


def with_mask_values(splits: Mapping[str, Split], text: str | None, labels: Sequence[str]) -> dict[str, Split]:
    """
    Return splits whose label maps are read with an option of stored values, see [`parse_mask_values`].

    Raises:
        ValueError: If the option is malformed or names an unknown class.
    """
    mask_values = parse_mask_values(text, labels)
    if mask_values is None:
        return dict(splits)
    return {
        name: replace(split, pairs=[replace(pair, mask_values=mask_values) for pair in split.pairs])
        for name, split in splits.items()
    }


def listed(values: Sequence[int]) -> str:
    """Format values for an error."""
    return ", ".join(map(str, values[:NUM_LISTED])) + (", ..." if len(values) > NUM_LISTED else "")


def check_ids(label_map: np.ndarray, num_labels: int, name: str, ignore_index: int | None = IGNORE_INDEX):
    """
    Refuse a label map with values that are no classes; the error guesses what they mean.

    Args:
        label_map (`np.ndarray` of shape `(height, width)`): Class ids, uint8.
        num_labels (`int`): Number of classes.
        name (`str`): Name of the label map.
        ignore_index (`int`, *optional*, defaults to 255): Label of pixels without a class.

    Raises:
        ValueError: If there are such values.
    """
    # Most label maps pass this test, which takes a tenth of the time.
    if label_map.max(initial=0) < num_labels:
        return
    values = np.flatnonzero(np.bincount(label_map.reshape(-1), minlength=256)).tolist()
    unknown = [value for value in values if value >= num_labels and value != ignore_index]
    if unknown:
        known = f"0 to {num_labels - 1}" + ("" if ignore_index is None else f", and {ignore_index} for no class")
        raise ValueError(
            f"{name} has the unknown labels [{listed(unknown)}]: with {num_labels} classes, labels are {known}. "
            f"{hint(values, num_labels)}"
        )


def hint(values: Sequence[int], num_labels: int) -> str:
    """Guess the convention of a label map with unknown labels, and return the remedy."""
    classes = [value for value in values if value != IGNORE_INDEX]
    if max(classes, default=0) == num_labels:
        zero = "0 seems to mark pixels without a class" if 0 in classes else "0 does not occur"
        option = ("0:ignore," if 0 in classes else "") + "1:FIRST,2:SECOND,..."
        return f"They seem to be numbered from 1 ({zero}): pass --mask-values {option}, with the names of the classes."
    if max(classes, default=0) >= 16 and len(values) <= num_labels + 1:
        option = ",".join(f"{value}:CLASS" for value in values[:NUM_LISTED])
        return f"If these grey levels mean classes, pass --mask-values {option}, with the names of the classes."
    return "Name all classes, map the values with --mask-values, or correct the label map."
