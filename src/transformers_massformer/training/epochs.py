"""A Trainer whose data order depends on seed and epoch alone."""

from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback

from ..data.training_set import EpochSampler, TrainingSet
from .workers import WorkerCollate


class EpochCallback(TrainerCallback):
    """Callback that sets the epoch of a training set, which accelerate does not do with several processes."""

    def __init__(self, train_dataset: TrainingSet):
        self.train_dataset = train_dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        # Fractional when training resumes within an epoch.
        self.train_dataset.set_epoch(int(state.epoch or 0))


class EpochTrainer(Trainer):
    """
    `transformers.Trainer` that follows the epochs and the order of a [`TrainingSet`]. The order does not depend on the
    number of processes or on interruptions.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        collate: Any = self.data_collator
        self.data_collator = WorkerCollate(collate)
        if isinstance(self.train_dataset, TrainingSet):
            self.add_callback(EpochCallback(self.train_dataset))

    def get_train_dataloader(self) -> Any:
        """Return the base class's loader with a generator of its own, so that starting workers does not consume the
        random numbers of the model."""
        dataloader: Any = super().get_train_dataloader()
        # accelerate wraps the loader, and passes its own generator on when it skips batches.
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
        """Leave the process group and stop its threads."""
        # The wrapped model holds the group; threads alive at interpreter shutdown would abort the process.
        self.model_wrapped = self.model
        self.accelerator.free_memory()
        super().end()
