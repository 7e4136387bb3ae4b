"""The training samples of a data set, epoch by epoch."""

import os
from typing import Any, Protocol

import numpy as np
import PIL.Image
import torch
from torch.utils.data import Dataset

from .reading import lay_on_photo, picture_size, read_label, read_photo
from .transforms import TrainingTransform


class Samples(Protocol):
    """Anything with a length whose items are mappings, such as a `datasets.Dataset` or a list of dictionaries."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def source_name(source: str | os.PathLike | PIL.Image.Image, what: str, index: int) -> str:
    """What an error calls a part of a sample: its file where it is known."""
    path = getattr(source, "filename", "") if isinstance(source, PIL.Image.Image) else os.fspath(source)
    return os.fspath(path) if path else f"The {what} of sample {index}"


class TrainingSet(Dataset):
    """
    Training samples of a data set. A sample is a function of seed, epoch and index alone, whatever the order, the
    number of workers or the number of processes.

    `set_epoch` reaches workers that are running already (`persistent_workers=True`). `transformers.Trainer` calls it,
    through accelerate, if there is one process; with several, accelerate tells only the sampler, and `set_epoch` is to
    be called at the beginning of each epoch.

    Args:
        dataset (`Samples`): Its items have an `"image"` and a `"label"`, each a PIL image or the path of a file, such
            as those of a `datasets.Dataset`.
        transform (`TrainingTransform`): Makes the samples.
        seed (`int`): From 0 to 2^64 - 1; another seed gives other samples.

    Raises:
        ValueError: If the seed is out of its range.
    """

    def __init__(self, dataset: Samples, transform: TrainingTransform, seed: int = 0):
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed}; it must be 0 to 2^64 - 1.")
        self.dataset = dataset
        self.transform = transform
        self.seed = seed
        # In memory that worker processes share.
        self.shared_epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self.shared_epoch)

    def set_epoch(self, epoch: int):
        """
        Args:
            epoch (`int`): From 0; each has samples of its own.
        """
        self.shared_epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """
        Args:
            index (`int`): Which sample; negative ones count from the end.

        Returns:
            `dict[str, torch.Tensor]`: What the transform returns: `pixel_values` and `labels`.

        Raises:
            IndexError: If there is no such sample.
            FileNotFoundError: If a file is missing.
            ValueError: If a file cannot be decoded, the sizes differ, or there are unknown labels.
        """
        index = range(len(self))[index]
        item = self.dataset[index]
        names = source_name(item["image"], "image", index), source_name(item["label"], "label map", index)
        image, orientation = read_photo(item["image"], names[0])
        label = lay_on_photo(*read_label(item["label"], names[1]), picture_size(image), orientation, names)
        return self.transform(image, label, self.generator(index), names[1])

    def generator(self, index: int) -> np.random.Generator:
        """The random numbers of a sample in the present epoch."""
        return np.random.Generator(np.random.Philox(key=[self.seed, self.epoch], counter=[0, 0, 0, index]))
