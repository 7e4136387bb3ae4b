"""Data in an order that depends on seed and epoch alone."""

from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback

from ..data.training_set import EpochSampler, TrainingSet


class EpochCallback(TrainerCallback):
    """Tells a training set the epoch; with several processes accelerate would tell nobody."""

    def __init__(self, train_dataset: TrainingSet):
        self.train_dataset = train_dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        # A fraction where a training is resumed within an epoch.
        self.train_dataset.set_epoch(int(state.epoch or 0))


class EpochTrainer(Trainer):
    """
    `transformers.Trainer` that follows the epochs and the order of a [`TrainingSet`]: the same for any number of
    processes, and the same again when a training is resumed.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if isinstance(self.train_dataset, TrainingSet):
            self.add_callback(EpochCallback(self.train_dataset))

    def get_train_dataloader(self) -> Any:
        """As the base class; workers that start draw none of the random numbers that the model draws."""
        dataloader: Any = super().get_train_dataloader()
        # accelerate's goes through another, and passes its own generator on where batches are skipped.
        dataloader.generator = torch.Generator()
        getattr(dataloader, "base_dataloader", dataloader).generator = dataloader.generator
        return dataloader

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        if isinstance(dataset, TrainingSet) and self.args.train_sampling_strategy == "random":
            at_once = self.args.train_batch_size * self.args.world_size
            return EpochSampler(dataset, at_once * self.args.gradient_accumulation_steps)
        return super()._get_train_sampler(train_dataset)

    def end(self):
        """As the base class, and the threads of the process group end here."""
        # The wrapped model holds the group, whose threads would meet the end of the interpreter and abort the process.
        self.model_wrapped = self.model
        self.accelerator.free_memory()
        super().end()
