"""From the classes of a model to those of the data."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch


def read_label_map_file(path: str | Path) -> dict[str, str | int]:
    """
    A JSON object from names or ids of a model's classes to names or ids of the data's.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path} with a label map.")
    try:
        mapping = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}.") from error
    if not isinstance(mapping, dict) or not all(isinstance(value, str | int) for value in mapping.values()):
        raise ValueError(f'{path} must hold one object such as {{"tree": "vegetation", "12": 1}}.')
    return mapping


def class_id(name: str | int, labels: Mapping[int, str], owner: str) -> int:
    """The id of a class given by its name or its id."""
    for index, label in labels.items():
        if name == label:
            return index
    if str(name).isdigit() and int(name) in labels:
        return int(name)
    raise ValueError(f"The label map names {name!r}, which is no class of the {owner}: {', '.join(labels.values())}.")


def class_lookup(
    model_labels: Mapping[int, str],
    data_labels: Sequence[str],
    mapping: Mapping[str, str | int] | None = None,
    allow_missing: bool = False,
) -> torch.Tensor:
    """
    A table of the data's class for each of the model's.

    Args:
        model_labels (`Mapping[int, str]`): Names of the model's classes by id.
        data_labels (`Sequence[str]`): Names of the data's classes, in their order.
        mapping (`Mapping`, *optional*):
            Names or ids of the model's classes to those of the data's; `"*"` stands for all that are not named. By
            default classes are matched by name, or, where the names differ, by id if there are as many.
        allow_missing (`bool`, *optional*, defaults to `False`): Whether classes may have no counterpart.

    Returns:
        `torch.Tensor` of shape `(largest model id + 1,)`: int64, -1 for what has no counterpart.

    Raises:
        ValueError: If a class has no counterpart, or the mapping names one that does not exist.
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
            f'{len(data_labels)} ({", ".join(data_labels)}). Give a label map, a JSON file such as {{"tree": '
            f'"{data_labels[-1]}", "*": "{data_labels[0]}"}}.'
        )
    missing = [label for index, label in model_labels.items() if table[index] < 0]
    if missing and not allow_missing:
        raise ValueError(
            f"The label map leaves out {len(missing)} classes of the model ({', '.join(missing[:5])}). Name them, or "
            f'all others at once with "*".'
        )
    return table
