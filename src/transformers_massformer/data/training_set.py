"""The training samples of a data set, epoch by epoch."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from .samples import Samples, read_sample
from .transforms import TrainingTransform


class TrainingSet(Dataset):
    """
    Training samples of a data set. A sample is a function of seed, epoch and index alone, whatever the order, the
    number of workers or the number of processes.

    `set_epoch` is to be called at the beginning of each epoch; it reaches workers that are running already
    (`persistent_workers=True`). [`MaSSFormerTrainer`] calls it. `transformers.Trainer` does so through accelerate if
    there is one process.

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
        image, label, name = read_sample(self.dataset, index)
        return self.transform(image, label, self.generator(index), name)

    def generator(self, index: int) -> np.random.Generator:
        """The random numbers of a sample in the present epoch."""
        return np.random.Generator(np.random.Philox(key=[self.seed, self.epoch], counter=[0, 0, 0, index]))

    def order(self) -> list[int]:
        """The indices in the random order of the present epoch."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, self.epoch], counter=[0, 0, 1, 0]))
        return rng.permutation(len(self)).tolist()


class EpochSampler(Sampler):
    """
    The order of a [`TrainingSet`], which is a function of its seed and its epoch: the same in all processes, and the
    same again when a training is resumed.

    Args:
        dataset ([`TrainingSet`]): What is gone through.
        batch_size (`int`, *optional*, defaults to 1): Images of all processes that belong together. What is left over
            at the end of an epoch is dropped.

    Raises:
        ValueError: If there are fewer images than belong together.
    """

    def __init__(self, dataset: TrainingSet, batch_size: int = 1):
        if len(dataset) < batch_size:
            raise ValueError(
                f"There are {len(dataset)} training images, and a step takes {batch_size}: lower "
                "per_device_train_batch_size."
            )
        self.dataset = dataset
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.dataset) // self.batch_size * self.batch_size

    def __iter__(self) -> Iterator[int]:
        yield from self.dataset.order()[: len(self)]
