"""Map the classes of a model to those of the data: by their names, or as a label map says."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..utils.names import are_placeholders, find_name, list_names, match_names


def read_label_map_file(path: str | Path) -> dict[str, str | int]:
    """
    Read a JSON object that maps names or ids of a model's classes to names or ids of the data's.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it contains anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"The label map {path} does not exist.")
    try:
        mapping = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON in UTF-8: {error}.") from error
    if not isinstance(mapping, dict) or not all(type(value) in (str, int) for value in mapping.values()):
        raise ValueError(f'{path} must contain one object such as {{"tree": "vegetation", "12": 1}}.')
    return mapping


def class_id(name: str | int, labels: Sequence[str], owner: str) -> int:
    """Return the id of a class given by its name or its id."""
    index = find_name(str(name), labels) if isinstance(name, str) else None
    if index is not None:
        return index
    if str(name).isdecimal() and int(name) < len(labels):
        return int(name)
    raise ValueError(f"The label map names an unknown class, {name!r}; the {owner} has {', '.join(labels)}.")


def mapped_lookup(
    model_labels: Sequence[str], data_labels: Sequence[str], mapping: Mapping[str, str | int], allow_missing: bool
) -> list[int]:
    """Return the data's class for each of the model's as a label map says, see [`class_lookup`]."""
    table = [-1] * len(model_labels)
    for name, target in mapping.items():
        if name == "*":
            continue
        index, wanted = class_id(name, model_labels, "model"), class_id(target, data_labels, "data")
        if table[index] not in (-1, wanted):
            raise ValueError(
                f"The label map maps {model_labels[index]} to both {data_labels[table[index]]} and "
                f"{data_labels[wanted]}. Remove one."
            )
        table[index] = wanted
    if "*" in mapping:
        rest = class_id(mapping["*"], data_labels, "data")
        table = [rest if target < 0 else target for target in table]
    missing = [label for label, target in zip(model_labels, table, strict=True) if target < 0]
    if missing and not allow_missing:
        raise ValueError(
            f"The label map lacks {len(missing)} classes of the model ({', '.join(missing[:5])}). Add them, or map "
            f'all others with "*".'
        )
    return table


def matched_lookup(model_labels: Sequence[str], data_labels: Sequence[str]) -> list[int]:
    """Return the data's class of the same name for each of the model's; both must have the same names."""
    if are_placeholders(model_labels) and not are_placeholders(data_labels):
        raise ValueError(
            f"The model's classes have no names ({list_names(model_labels)}), so they cannot be matched with the "
            f"data's: {list_names(data_labels)}. Set id2label in the model's config.json, or pass --label-map, a JSON "
            f'file such as {{"0": "{data_labels[0]}", ...}}.'
        )
    places = match_names(data_labels, model_labels, "the data", "the model")
    if None not in places and len(model_labels) == len(data_labels):
        table = [-1] * len(model_labels)
        for index, place in enumerate(places):
            table[place or 0] = index
        return table
    raise ValueError(
        f"The names of the classes differ. The model has {len(model_labels)} classes, {list_names(model_labels)}; the "
        f"data {len(data_labels)}, {list_names(data_labels)}. If the data's are other ones, name them: --labels, or a "
        f'classes.txt beside the data. Otherwise pass --label-map, a JSON file such as {{"{model_labels[0]}": '
        f'"{data_labels[-1]}", "*": "{data_labels[0]}"}}.'
    )


def class_lookup(
    model_labels: Sequence[str],
    data_labels: Sequence[str],
    mapping: Mapping[str, str | int] | None = None,
    allow_missing: bool = False,
) -> torch.Tensor:
    """
    Return a lookup table from the model's class ids to the data's. Names decide, never ids.

    Args:
        model_labels (`Sequence[str]`): Names of the model's classes in the order of their ids.
        data_labels (`Sequence[str]`): Names of the data's classes in the order of their ids.
        mapping (`Mapping`, *optional*):
            Names or ids of the data's classes by names or ids of the model's; `"*"` stands for all others. By default,
            both must have the same names, in any order.
        allow_missing (`bool`, *optional*, defaults to `False`): Whether the model's classes may lack a counterpart.

    Returns:
        `torch.Tensor` of shape `(number of the model's classes,)`: int64, -1 for ids without a counterpart.

    Raises:
        ValueError: If a class has no counterpart or several, or the mapping names an unknown class.
    """
    if mapping is None:
        return torch.tensor(matched_lookup(model_labels, data_labels))
    return torch.tensor(mapped_lookup(model_labels, data_labels, mapping, allow_missing))
