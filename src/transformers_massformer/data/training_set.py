"""Training samples of a data set, epoch by epoch."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from .samples import Samples, read_sample
from .transforms import TrainingTransform


class TrainingSet(Dataset):
    """
    Training samples of a data set. A sample depends on seed, epoch and index alone, not on the order, the number of
    workers or the number of processes.

    Call `set_epoch` at the beginning of each epoch; it also reaches running workers (`persistent_workers=True`).
    [`MaSSFormerTrainer`] calls it. `transformers.Trainer` does so through accelerate if there is one process.

    Args:
        dataset (`Samples`): Its items have an `"image"` and a `"label"`, each a PIL image or the path of a file, such
            as those of a `datasets.Dataset`.
        transform (`TrainingTransform`): The transform that makes the samples.
        seed (`int`): From 0 to 2^64 - 1; different seeds give different samples.

    Raises:
        ValueError: If the seed is out of range.
    """

    def __init__(self, dataset: Samples, transform: TrainingTransform, seed: int = 0):
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed}; it must lie between 0 and 2^64 - 1.")
        self.dataset = dataset
        self.transform = transform
        self.seed = seed
        # In memory shared with worker processes.
        self.shared_epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self.shared_epoch)

    def set_epoch(self, epoch: int):
        """
        Select the samples of an epoch.

        Args:
            epoch (`int`): From 0; each epoch has its own samples.
        """
        self.shared_epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """
        Make a training sample.

        Args:
            index (`int`): Index of the sample; negative ones count from the end.

        Returns:
            `dict[str, torch.Tensor]`: The output of the transform: `pixel_values` and `labels`.

        Raises:
            IndexError: If the index is out of range.
            FileNotFoundError: If a file is missing.
            ValueError: If a file cannot be decoded, the sizes differ, or there are unknown labels.
        """
        index = range(len(self))[index]
        image, label, name = read_sample(self.dataset, index)
        return self.transform(image, label, self.generator(index), name)

    def generator(self, index: int) -> np.random.Generator:
        """Return the random generator of a sample in the current epoch."""
        return np.random.Generator(np.random.Philox(key=[self.seed, self.epoch], counter=[0, 0, 0, index]))

    def order(self) -> list[int]:
        """Return the indices in the random order of the current epoch."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, self.epoch], counter=[0, 0, 1, 0]))
        return rng.permutation(len(self)).tolist()


class EpochSampler(Sampler):
    """
    Sampler of a [`TrainingSet`], whose order depends on its seed and epoch alone: the same in all processes, and the
    same when training is resumed.

    Args:
        dataset ([`TrainingSet`]): The data set.
        batch_size (`int`, *optional*, defaults to 1): Images per step, of all processes. An incomplete step at the end
            of an epoch is dropped.

    Raises:
        ValueError: If there are fewer images than one step takes.
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
