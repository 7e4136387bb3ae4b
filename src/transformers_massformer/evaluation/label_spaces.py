"""Map the classes of a model to those of the data."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch


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
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(mapping, dict) or not all(isinstance(value, str | int) for value in mapping.values()):
        raise ValueError(f'{path} must contain one object such as {{"tree": "vegetation", "12": 1}}.')
    return mapping


def class_id(name: str | int, labels: Mapping[int, str], owner: str) -> int:
    """Return the id of a class given by its name or its id."""
    for index, label in labels.items():
        if name == label:
            return index
    if str(name).isdigit() and int(name) in labels:
        return int(name)
    raise ValueError(f"The label map names an unknown class, {name!r}; the {owner} has {', '.join(labels.values())}.")


def class_lookup(
    model_labels: Mapping[int, str],
    data_labels: Sequence[str],
    mapping: Mapping[str, str | int] | None = None,
    allow_missing: bool = False,
) -> torch.Tensor:
    """
    Return a lookup table from the model's class ids to the data's.

    Args:
        model_labels (`Mapping[int, str]`): Names of the model's classes by id.
        data_labels (`Sequence[str]`): Names of the data's classes in the order of their ids.
        mapping (`Mapping`, *optional*):
            Names or ids of the data's classes by names or ids of the model's; `"*"` stands for all others. By default,
            classes are matched by name or, if the names differ but the ids are the same, by id.
        allow_missing (`bool`, *optional*, defaults to `False`): Whether the model's classes may lack a counterpart.

    Returns:
        `torch.Tensor` of shape `(largest model id + 1,)`: int64, -1 for ids without a counterpart.

    Raises:
        ValueError: If a class has no counterpart, or the mapping names an unknown class.
    """
    wanted = dict(enumerate(data_labels))
    table = torch.full((max(model_labels) + 1,), -1)
    if mapping is not None:
        rest = mapping.get("*")
        if rest is not None:
            table[:] = class_id(rest, wanted, "data")
        for name, target in mapping.items():
            if name != "*":
                table[class_id(name, model_labels, "model")] = class_id(target, wanted, "data")
    elif set(model_labels.values()) == set(data_labels):
        for index, label in model_labels.items():
            table[index] = data_labels.index(label)
    elif sorted(model_labels) == sorted(wanted):
        table[:] = torch.arange(len(wanted))
    else:
        raise ValueError(
            f"The model has {len(model_labels)} classes ({', '.join(list(model_labels.values())[:5])}, ...), the data "
            f'{len(data_labels)} ({", ".join(data_labels)}). Pass a label map, a JSON file such as {{"tree": '
            f'"{data_labels[-1]}", "*": "{data_labels[0]}"}}.'
        )
    missing = [label for index, label in model_labels.items() if table[index] < 0]
    if missing and not allow_missing:
        raise ValueError(
            f"The label map lacks {len(missing)} classes of the model ({', '.join(missing[:5])}). Add them, or map "
            f'all others with "*".'
        )
    return table
