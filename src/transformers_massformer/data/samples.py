"""Read photographs and label maps from the items of a data set."""

import os
from collections.abc import Sequence
from typing import Any, Protocol

import PIL.Image
import torch
from torch.utils.data import Dataset

from .layout import IGNORE_INDEX
from .reading import read_pair


class Samples(Protocol):
    """A sized collection of mappings, such as a `datasets.Dataset` or a list of dictionaries."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def source_name(source: str | os.PathLike | PIL.Image.Image, what: str, index: int) -> str:
    """Return the name of an image in errors: its file if known."""
    path = getattr(source, "filename", "") if isinstance(source, PIL.Image.Image) else os.fspath(source)
    return os.fspath(path) if path else f"The {what} of sample {index}"


def read_sample(dataset: Samples, index: int) -> tuple[PIL.Image.Image, torch.Tensor, str]:
    """
    Read the photograph and the label map of an item.

    Args:
        dataset (`Samples`): Its items have an `"image"` and a `"label"`, each a PIL image or the path of a file; and
            optionally `"mask_values"`, the ids of the stored values, see [`read_label`], and `"class_ids"`, the class
            of each of these ids, see [`with_class_ids`].
        index (`int`): Index of the item.

    Returns:
        `tuple[PIL.Image.Image, torch.Tensor, str]`: The upright photograph in mode RGB; the label map that lies on it,
        of shape `(height, width)` in uint8; and the name of the label map in errors.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file cannot be decoded, or the sizes differ.
    """
    item = dataset[index]
    names = source_name(item["image"], "image", index), source_name(item["label"], "label map", index)
    image, label = read_pair(item["image"], item["label"], names, item.get("mask_values"))
    if "class_ids" in item:
        label = with_class_ids(label, item["class_ids"], names[1])
    return image, label, names[1]


def with_class_ids(label: torch.Tensor, class_ids: Sequence[int], name: str) -> torch.Tensor:
    """
    Replace the ids of a label map by those of the classes to train.

    Args:
        label (`torch.Tensor` of shape `(height, width)`): The label map, uint8; 255 stays.
        class_ids (`Sequence[int]`): The class of each id.
        name (`str`): Name of the label map in errors.

    Raises:
        ValueError: If the label map has other ids.
    """
    table = torch.full((256,), IGNORE_INDEX, dtype=torch.uint8)
    table[: len(class_ids)] = torch.tensor(class_ids, dtype=torch.uint8)
    unknown = [value for value in label.unique().tolist() if value >= len(class_ids) and value != IGNORE_INDEX]
    if unknown:
        raise ValueError(
            f"{name} has the unknown labels {unknown}: its data names {len(class_ids)} classes. Fix the label map, or "
            "name all classes."
        )
    return table[label.long()]


class EvaluationSet(Dataset):
    """
    Data set of photographs with label maps, both at their own size.

    Args:
        dataset (`Samples`): Its items have an `"image"` and a `"label"`, each a PIL image or the path of a file, such
            as those of a `datasets.Dataset`.
    """

    def __init__(self, dataset: Samples):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """
        Read an item.

        Args:
            index (`int`): Index of the item; negative ones count from the end.

        Returns:
            `dict`: `image`, an upright `PIL.Image.Image` in mode RGB; `label`, a uint8 `torch.Tensor` of shape
            `(height, width)`; `name`, the name of the label map in errors.

        Raises:
            IndexError: If the index is out of range.
            FileNotFoundError: If a file is missing.
            ValueError: If a file cannot be decoded, or the sizes differ.
        """
        image, label, name = read_sample(self.dataset, range(len(self))[index])
        return {"image": image, "label": label.as_subclass(torch.Tensor), "name": name}
