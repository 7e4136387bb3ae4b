"""A whole training, from files to a folder with a model: what `massformer train` does."""

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerState, set_seed
from transformers.utils import logging

from ..data.layout import Pair, Split, check_faults, choose_split, find_splits, full_split_name
from ..data.pseudo_labels import PseudoLabelFiles
from ..data.training_set import TrainingSet
from ..data.transforms import TrainingTransform
from ..utils.files import written_whole
from ..utils.resuming import claim
from .arguments import DataArguments, MaSSFormerTrainingArguments, ModelArguments
from .checkpoints import STATE_FILE, last_checkpoint, remove_checkpoints, whole_or_not_at_all
from .classes import LabelSetting, apply_setting, check_new_classes, class_names
from .model_card import write_model_card
from .models import build_model
from .trainer import MaSSFormerTrainer


logger = logging.get_logger(__name__)

IDENTITY_FILE, RESULTS_FILE = "training.json", "eval_results.json"
# Arguments that change what is trained, so that a training with others is another one.
DEFINING = (
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "backbone_learning_rate_factor",
    "bf16",
    "data_seed",
    "fixed_norm_statistics",
    "fp16",
    "freeze_backbone",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "max_grad_norm",
    "max_steps",
    "num_train_epochs",
    "optim",
    "per_device_train_batch_size",
    "seed",
    "train_backbone_norms",
    "warmup_steps",
    "weight_decay",
    "world_size",
)


def read_pairs(splits: Mapping[str, Split], name: str) -> list[Pair]:
    """
    The files of a split, of which nothing is wrong.

    Args:
        splits (`Mapping[str, Split]`): From [`find_splits`].
        name (`str`): `"train"`, `"validation"` (or `"val"`) or `"test"`.

    Raises:
        ValueError: If there is no such split, or something is wrong with its files.
    """
    split = choose_split(splits, name)
    check_faults(full_split_name(name), split)
    return split.pairs


def labelled_pairs(pairs: list[Pair], arguments: DataArguments) -> list[Pair]:
    """
    Training photographs with the label maps to train on, their own or those with pseudo-labels.

    Raises:
        FileNotFoundError: If some are missing.
    """
    if arguments.pseudo_labels is None:
        return pairs
    files = PseudoLabelFiles(Path(arguments.pseudo_labels))
    split = full_split_name(arguments.train_split)
    return files.pairs(pairs, split, alone=arguments.label_setting == LabelSetting.alone)


def items(pairs: Sequence[Pair]) -> list[dict[str, Path]]:
    """Pairs as items of a data set."""
    return [{"image": pair.image, "label": pair.label} for pair in pairs]


def evenly(pairs: list[Pair], count: int | None) -> list[Pair]:
    """So many of them, evenly spread."""
    if count is None or count >= len(pairs):
        return pairs
    return [pairs[index * len(pairs) // count] for index in range(count)]


class TrainingSession:
    """
    A training on a folder of data, which writes checkpoints and at the end a model to `args.output_dir`. Begun there
    before, it goes on from the last checkpoint.

    Args:
        model_arguments ([`ModelArguments`]): Which model.
        data_arguments ([`DataArguments`]): Which data.
        args ([`MaSSFormerTrainingArguments`]): How.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to forget what is in the folder.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If something does not fit, or the folder holds another training.
    """

    def __init__(
        self,
        model_arguments: ModelArguments,
        data_arguments: DataArguments,
        args: MaSSFormerTrainingArguments,
        overwrite: bool = False,
    ):
        self.model_arguments, self.data_arguments, self.args = model_arguments, data_arguments, args
        self.output = Path(str(args.output_dir))
        if data_arguments.data is None:
            raise ValueError("Name the data with --data: a folder in the layout of MaSS13K.")
        splits = find_splits(data_arguments.data)
        self.train_pairs = labelled_pairs(read_pairs(splits, data_arguments.train_split), data_arguments)
        has_eval_split = full_split_name(data_arguments.eval_split) in splits
        self.eval_pairs = read_pairs(splits, data_arguments.eval_split) if has_eval_split else []
        if not has_eval_split and args.eval_strategy != "no":
            logger.warning(f"{data_arguments.data} has no split {data_arguments.eval_split}: nothing is evaluated.")
            args.eval_strategy, args.load_best_model_at_end = "no", False
        with args.main_process_first(desc="preparing the folder"):
            if self.is_main_process:
                self.prepare_folder(overwrite)
        set_seed(args.seed)
        self.model, self.processor, constant_inputs = build_model(model_arguments, data_arguments.crop_size)
        if data_arguments.pseudo_labels is not None:
            classes = PseudoLabelFiles(Path(data_arguments.pseudo_labels)).read_classes()
            check_new_classes(self.model, classes)
            apply_setting(self.model, data_arguments.label_setting, list(classes))
        transform = TrainingTransform(
            crop_size=data_arguments.crop_size,
            num_labels=len(class_names(self.model)),
            ignore_index=getattr(self.model.config, "ignore_index", 255),
            short_sides=tuple(data_arguments.short_sides),
            max_long_side=data_arguments.max_long_side,
        )
        seed = args.seed if args.data_seed is None else args.data_seed
        self.trainer = MaSSFormerTrainer(
            model=self.model,
            args=args,
            train_dataset=TrainingSet(items(self.train_pairs), transform, seed),
            eval_dataset=items(evenly(self.eval_pairs, data_arguments.max_eval_images)) or None,
            processing_class=self.processor,
            constant_inputs=constant_inputs,
        )

    @property
    def is_main_process(self) -> bool:
        return self.args.process_index == 0

    def identity(self) -> dict[str, Any]:
        """By what a training is known again."""
        data = {**vars(self.data_arguments), "data": str(Path(str(self.data_arguments.data)).resolve())}
        how = {name: getattr(self.args, name) for name in DEFINING}
        return json.loads(json.dumps({**vars(self.model_arguments), **data, **how}, default=str))

    def prepare_folder(self, overwrite: bool):
        """
        Raises:
            OSError: If the folder cannot be written to.
            ValueError: If it holds another training.
        """
        path = self.output / IDENTITY_FILE
        if overwrite:
            remove_checkpoints(self.output)
            (self.output / RESULTS_FILE).unlink(missing_ok=True)
        elif not path.exists() and last_checkpoint(self.output, 1) is not None:
            raise ValueError(
                f"{self.output} holds checkpoints of unknown origin. Choose another --output, or --overwrite them."
            )
        try:
            claim(path, self.identity(), "training", overwrite)
        except OSError as error:
            raise OSError(f"{self.output} cannot be written to ({error}). Choose another --output.") from error

    def finished_metrics(self) -> dict[str, float] | None:
        """The results of a training that has come to its end before."""
        path = self.output / RESULTS_FILE
        return json.loads(path.read_text()) if path.exists() else None

    def run(self) -> dict[str, Any]:
        """
        Trains, evaluates on the whole split, and saves model, processor, results and card.

        Returns:
            `dict`: What was measured.
        """
        finished = self.finished_metrics()
        if finished is not None:
            logger.warning(f"{self.output} is finished already; begin anew with --overwrite.")
            return finished
        start = time.time()
        checkpoint = self.args.resume_from_checkpoint or last_checkpoint(self.output, self.args.world_size)
        if checkpoint is None:
            self.trainer.train()
        else:
            self.go_on(Path(checkpoint))
        metrics: dict[str, Any] = {"train_seconds_of_last_run": time.time() - start}
        if self.eval_pairs:
            metrics |= self.trainer.evaluate(items(self.eval_pairs))
        self.save(metrics)
        return metrics

    def go_on(self, checkpoint: Path):
        """Trains what is left after a checkpoint; nothing, if that was the last, whose model is restored."""
        logger.warning(f"Going on from {checkpoint}.")
        state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        if state.global_step < (self.args.max_steps if self.args.max_steps > 0 else state.max_steps):
            self.trainer.train(resume_from_checkpoint=str(checkpoint))
            return
        # `Trainer` would take another step.
        self.trainer.state = state
        keeps_best = self.args.load_best_model_at_end and state.best_model_checkpoint is not None
        self.trainer._load_from_checkpoint(state.best_model_checkpoint if keeps_best else str(checkpoint))

    def save(self, metrics: dict[str, Any]):
        """Writes the model and what belongs to it; each file takes its place when it is whole."""
        partial = self.output / ".model.partial"
        if self.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        # None may write there before it is removed.
        self.trainer.accelerator.wait_for_everyone()
        with whole_or_not_at_all(partial, "The model"):
            self.trainer.save_model(str(partial))
            if not self.is_main_process:
                return
            write_model_card(partial, self, metrics)
            for path in sorted(partial.iterdir()):
                path.replace(self.output / path.name)
            partial.rmdir()
        with written_whole(self.output / RESULTS_FILE) as file:
            measured = {name: value for name, value in metrics.items() if not math.isnan(value)}
            file.write_text(json.dumps(measured, indent=1) + "\n")

    def end(self):
        """Leaves the process group; after everything that needs the other processes."""
        self.trainer.end()
