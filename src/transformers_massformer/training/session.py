"""A complete training run, from data files to a folder with the trained model, as in `massformer train`."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import upload_folder
from transformers import TrainerState, set_seed
from transformers.utils import logging

from ..data.class_names import DataClasses, data_classes, read_given_names
from ..data.layout import Pair, Split, check_faults, choose_split, find_splits, full_split_name
from ..data.mask_values import parse_mask_values
from ..data.mixture import MixtureSet, Source, join_classes, read_mixture, source_class_ids
from ..data.presence import SAMPLE, Presence, check_convention, describe_absent, find_presence, label_sources
from ..data.pseudo_labels import PseudoLabelFiles
from ..data.training_set import TrainingSet
from ..data.transforms import TrainingTransform
from ..inference.identity import model_identity
from ..inference.loading import class_names
from ..utils.fingerprint import differing
from ..utils.json_files import write_json
from ..utils.names import find_name, same_names
from ..utils.resuming import claim
from .arguments import DataArguments, MaSSFormerTrainingArguments, ModelArguments
from .card import CardRecord, describe_training, model_card
from .checkpoints import STATE_FILE, last_checkpoint, remove_checkpoints, whole_or_not_at_all
from .classes import LabelSetting, apply_setting, check_new_classes
from .models import build_model
from .trainer import MaSSFormerTrainer


logger = logging.get_logger(__name__)

IDENTITY_FILE, RESULTS_FILE = "training.json", "eval_results.json"
# Files of the output folder that stay here: checkpoints, temporary files, and the record with paths of this machine.
NOT_PUBLISHED = ["checkpoint-*", ".*", "*/.*", "*.partial", "_*", "runs/*", "training.json"]
# Training arguments that identify a training run when resuming, besides model and data.
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
    "offset_learning_rate_factor",
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
    Return the photos and label maps of a split after checking them.

    Args:
        splits (`Mapping[str, Split]`): Result of [`find_splits`].
        name (`str`): `"train"`, `"validation"` (or `"val"`) or `"test"`.

    Raises:
        ValueError: If the split does not exist or its files have faults.
    """
    split = choose_split(splits, name)
    check_faults(full_split_name(name), split)
    return split.pairs


def labelled_pairs(pairs: list[Pair], arguments: DataArguments) -> list[Pair]:
    """
    Return the training photos with the label maps to train on: their own, or pseudo-labels.

    Raises:
        FileNotFoundError: If pseudo-labels are missing.
    """
    if arguments.pseudo_labels is None:
        return pairs
    files = PseudoLabelFiles(Path(arguments.pseudo_labels))
    split = full_split_name(arguments.train_split)
    return files.pairs(pairs, split, alone=arguments.label_setting == LabelSetting.alone)


@dataclass(frozen=True)
class Part:
    """Photos with label maps of one folder to train and to evaluate on, and the classes of these label maps."""

    train_pairs: list[Pair]
    eval_pairs: list[Pair]
    classes: DataClasses


def read_folder(folder: str | Path, arguments: DataArguments, labels: Sequence[str] | None) -> Part:
    """
    Read the training photos of a folder with the label maps to train on, the evaluation photos, if any, and the
    classes.

    Args:
        folder (`str` or `Path`): The folder.
        arguments ([`DataArguments`]): The training data.
        labels (`Sequence[str]`, *optional*): Names of the classes, if the caller gives them.

    Raises:
        FileNotFoundError: If the folder or pseudo-labels are missing.
        ValueError: If there is no split to train on, files have faults, or names of classes differ.
    """
    splits = find_splits(folder)
    classes = data_classes(folder, splits, labels)
    if arguments.pseudo_labels is not None and not classes.is_assumed:
        new = PseudoLabelFiles(Path(arguments.pseudo_labels)).read_classes()
        joined = [
            *classes.names,
            *(new[index] for index in sorted(new) if find_name(new[index], classes.names) is None),
        ]
        classes = replace(classes, names=joined)
    train_pairs = labelled_pairs(read_pairs(splits, arguments.train_split), arguments)
    has_eval_split = full_split_name(arguments.eval_split) in splits
    return Part(train_pairs, read_pairs(splits, arguments.eval_split) if has_eval_split else [], classes)


def read_source(source: Source, arguments: DataArguments) -> Part:
    """Read the folder of a source as [`read_folder`] does; errors name the source."""
    try:
        return read_folder(source.data, arguments, None)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{source.origin}: {error}") from error


def read_sources(arguments: DataArguments) -> list[Source]:
    """
    Return the sources of a mixture, or none if the data is a folder.

    Raises:
        FileNotFoundError: If the folder of a source is missing.
        ValueError: If no data is given, or the description of the mixture is wrong.
    """
    if arguments.data is None:
        raise ValueError("Pass --data, a folder in the layout of MaSS13K or a YAML file that mixes several.")
    path = Path(arguments.data)
    if not path.is_file():
        return []
    if arguments.mask_values is not None:
        raise ValueError(
            f"{path} is a mixture, to which --mask_values does not apply. Convert the folders whose values are no "
            "class ids with `massformer annotations --mask-values`."
        )
    if arguments.pseudo_labels is not None:
        raise ValueError(f"{path} is a mixture, to which --pseudo_labels does not apply. Pass a folder as --data.")
    return read_mixture(path)


def items(pairs: Sequence[Pair], class_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """
    Convert pairs of files to items of a data set.

    Args:
        pairs (`Sequence[Pair]`): The pairs.
        class_ids (`Sequence[int]`, *optional*): The class to train for each id in the label maps, if they differ.
    """
    fields = {} if class_ids is None else {"class_ids": class_ids}
    return [
        {"image": pair.image, "label": pair.label, **fields}
        | ({} if pair.mask_values is None else {"mask_values": pair.mask_values})
        for pair in pairs
    ]


def evenly(pairs: list[Any], count: int | None) -> list[Any]:
    """Pick `count` evenly spaced pairs, or all of them for `None`."""
    if count is None or count >= len(pairs):
        return pairs
    return [pairs[index * len(pairs) // count] for index in range(count)]


def has_other_sizes(path: Path, identity: dict[str, Any]) -> bool:
    """Return whether a training differs from the one that a folder belongs to in the sizes of its files alone."""
    if not path.exists():
        return False
    return differing(json.loads(path.read_text(encoding="utf-8")), identity) == ["data_sizes"]


class TrainingSession:
    """
    Training run on a folder of data or a mixture of several. It writes checkpoints and finally the model to
    `args.output_dir`, and resumes from the latest complete checkpoint there.

    Args:
        model_arguments ([`ModelArguments`]): The model to train.
        data_arguments ([`DataArguments`]): The training data.
        args ([`MaSSFormerTrainingArguments`]): The training arguments.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to discard earlier results in the output folder.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If options, model and data do not fit together, or the output folder holds another training.
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
        self.sources = read_sources(data_arguments)
        labels = read_given_names(model_arguments.labels)
        parts = [read_source(source, data_arguments) for source in self.sources]
        parts = parts or [read_folder(str(data_arguments.data), data_arguments, labels)]
        self.classes = join_classes([part.classes for part in parts], labels) if self.sources else parts[0].classes
        if not any(part.eval_pairs for part in parts) and args.eval_strategy != "no":
            logger.warning(f"{data_arguments.data} has no split {data_arguments.eval_split}; evaluation is off.")
            args.eval_strategy, args.load_best_model_at_end = "no", False
        set_seed(args.seed)
        self.model, self.processor, constant_inputs = build_model(
            model_arguments, data_arguments.crop_size, self.classes
        )
        parts = [self.with_mask_values(part) for part in parts]
        class_ids = [self.class_ids(number, part.classes) for number, part in enumerate(parts)]
        self.train_parts = [items(part.train_pairs, ids) for part, ids in zip(parts, class_ids, strict=True)]
        self.eval_items = [
            item for part, ids in zip(parts, class_ids, strict=True) for item in items(part.eval_pairs, ids)
        ]
        if data_arguments.pseudo_labels is not None:
            classes = PseudoLabelFiles(Path(data_arguments.pseudo_labels)).read_classes()
            check_new_classes(self.model, classes)
            apply_setting(self.model, data_arguments.label_setting, list(classes))
        train_dataset = self.training_set()
        self.check_presence(parts, class_ids)
        # Options that are wrong must not leave their mark on the folder.
        with args.main_process_first(desc="preparing the folder"):
            if self.is_main_process:
                self.prepare_folder(overwrite)
        self.trainer = MaSSFormerTrainer(
            model=self.model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=evenly(self.eval_items, data_arguments.max_eval_images) or None,
            processing_class=self.processor,
            constant_inputs=constant_inputs,
        )

    def with_mask_values(self, part: Part) -> Part:
        """Return a part whose label maps are read with the option of stored values; pseudo-labels have class ids."""
        names = class_names(self.model.config) if part.classes.is_assumed else part.classes.names
        mask_values = parse_mask_values(self.data_arguments.mask_values, names)
        if mask_values is None:
            return part
        train, evaluation = (
            [replace(pair, mask_values=mask_values) for pair in pairs] for pairs in (part.train_pairs, part.eval_pairs)
        )
        return replace(
            part,
            train_pairs=part.train_pairs if self.data_arguments.pseudo_labels is not None else train,
            eval_pairs=evaluation,
        )

    def check_presence(self, parts: Sequence[Part], class_ids: Sequence[list[int] | None]):
        """
        Refuse splits without classes to tell apart, and warn of classes that the training photos lack.

        Args:
            parts (`Sequence[Part]`): The data.
            class_ids (`Sequence`): The class to train for each id in the label maps of a part, if they differ.

        Raises:
            ValueError: If the values of a split's label maps cannot mean what they say.
        """
        labels, joined = class_names(self.model.config), Presence()
        for number, (part, ids) in enumerate(zip(parts, class_ids, strict=True)):
            names = labels if ids is None else part.classes.names
            source = self.sources[number] if self.sources else None
            where = str(self.data_arguments.data) if source is None else source.origin
            is_partial = source is not None and source.annotated_classes is not None
            for split, pairs in (("train", part.train_pairs), ("eval", part.eval_pairs)):
                if not pairs:
                    continue
                found = find_presence(label_sources(pairs), len(names), SAMPLE if split == "train" else 1)
                if not (is_partial and found.classes):
                    name = getattr(self.data_arguments, f"{split}_split")
                    check_convention(found, names, f"split {name} in {where}")
                if split == "train":
                    joined.ids |= found.ids if ids is None else {ids[i] for i in found.classes if i < len(ids)}
                    joined.num_read, joined.num_maps = joined.num_read + found.num_read, joined.num_maps + len(pairs)
        warning = describe_absent(joined, labels)
        if warning is not None and self.is_main_process:
            logger.warning(warning)

    def class_ids(self, number: int, classes: DataClasses) -> list[int] | None:
        """Return the class to train for each id in the label maps of a source, or `None` if the ids are the same."""
        if not self.sources or classes.is_assumed and self.model_arguments.labels:
            return None
        names = class_names(self.model.config)
        # Unnamed data may have more classes, which were added to MaSS13K's.
        if classes.is_assumed and same_names(names[: len(classes.names)], classes.names):
            return None
        return source_class_ids(self.sources[number], classes, names)

    def training_set(self) -> TrainingSet:
        """Create the training set of the folder or the mixture."""
        labels = class_names(self.model.config)
        transform = TrainingTransform(
            crop_size=self.data_arguments.crop_size,
            num_labels=len(labels),
            ignore_index=getattr(self.model.config, "ignore_index", 255),
            short_sides=tuple(self.data_arguments.short_sides),
            max_long_side=self.data_arguments.max_long_side,
        )
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if self.sources:
            return MixtureSet(self.train_parts, self.sources, transform, labels, seed)
        return TrainingSet(self.train_parts[0], transform, seed)

    @property
    def is_main_process(self) -> bool:
        return self.args.process_index == 0

    def identity(self) -> dict[str, Any]:
        """Return the settings that identify this training run when resuming."""
        data = {**vars(self.data_arguments), "data": str(Path(str(self.data_arguments.data)).resolve())}
        if self.sources:
            data["sources"] = [source.identity() for source in self.sources]
        if not self.classes.is_assumed:
            data["classes"] = self.classes.names
        how = {name: getattr(self.args, name) for name in DEFINING}
        names, sizes = self.data_files()
        what = {"data_files": names, "data_sizes": sizes, "model_files": self.model_files()}
        return json.loads(json.dumps({**vars(self.model_arguments), **data, **how, **what}, default=str))

    def data_files(self) -> tuple[str, str]:
        """
        Return hashes of the names and of the sizes of all photos and label maps. Their contents may amount to many
        gigabytes, and their times change when data is copied to a machine for each run.
        """
        found = [*(item for part in self.train_parts for item in part), *self.eval_items]
        paths = [path for item in found for path in (item["image"], item["label"])]
        names, sizes = (path.name for path in paths), (str(path.stat().st_size) for path in paths)
        joined = ("\n".join(lines).encode("utf-8", "surrogateescape") for lines in (names, sizes))
        of_names, of_sizes = (hashlib.sha256(text).hexdigest() for text in joined)
        return of_names, of_sizes

    def model_files(self) -> list[list[str]]:
        """Return names and hashes of the files that the training starts from; variants and Hub names have none."""
        model, weights = self.model_arguments.model, self.model_arguments.backbone_weights
        given = [path for path in (model, weights) if path is not None and Path(path).exists()]
        return [file for path in given for file in model_identity(path)]

    def prepare_folder(self, overwrite: bool):
        """
        Create the output folder, or check that it holds this training run.

        Args:
            overwrite (`bool`): Whether to discard earlier results.

        Raises:
            OSError: If the folder is not writable.
            ValueError: If it holds another training.
        """
        path = self.output / IDENTITY_FILE
        if overwrite:
            remove_checkpoints(self.output)
            (self.output / RESULTS_FILE).unlink(missing_ok=True)
        elif not path.exists() and last_checkpoint(self.output, 1) is not None:
            raise ValueError(
                f"{self.output} holds checkpoints of unknown origin. Choose another --output or pass --overwrite."
            )
        identity = self.identity()
        repaired = not overwrite and self.finished_metrics() is None and has_other_sizes(path, identity)
        if repaired:
            logger.warning(
                f"Photos or label maps have changed since the training in {self.output} started. The remaining steps "
                "read them as they are now; pass --overwrite to start again."
            )
        try:
            claim(path, identity, "training", overwrite or repaired)
        except OSError as error:
            raise OSError(f"{self.output} is not writable ({error}). Choose another --output.") from error

    def finished_metrics(self) -> dict[str, float] | None:
        """Return the results of a finished training, or `None`."""
        path = self.output / RESULTS_FILE
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def run(self) -> dict[str, Any]:
        """
        Train, evaluate on the whole split, and save model, processor, results and card.

        Returns:
            `dict`: Metrics of the run.
        """
        finished = self.finished_metrics()
        if finished is not None:
            logger.warning(f"{self.output} holds this training, finished. Pass --overwrite to train again.")
            return finished
        start = time.time()
        checkpoint = self.args.resume_from_checkpoint or last_checkpoint(self.output, self.args.world_size)
        if checkpoint is None:
            self.trainer.train()
        else:
            self.resume(Path(checkpoint))
        metrics: dict[str, Any] = {"train_seconds_of_last_run": time.time() - start}
        if self.eval_items:
            metrics |= self.trainer.evaluate(self.eval_items)
        self.save(metrics)
        return metrics

    def resume(self, checkpoint: Path):
        """Train the remaining steps after a checkpoint; after the last step, only restore the model."""
        logger.warning(f"Resuming from {checkpoint}.")
        state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        steps = self.args.max_steps or 0
        if state.global_step < (steps if steps > 0 else state.max_steps):
            self.trainer.train(resume_from_checkpoint=str(checkpoint))
            return
        # `Trainer.train` would take another step.
        self.trainer.state = state
        keeps_best = self.args.load_best_model_at_end and state.best_model_checkpoint is not None
        self.trainer._load_from_checkpoint(state.best_model_checkpoint if keeps_best else str(checkpoint))

    def card_record(self, metrics: dict[str, Any]) -> CardRecord:
        """Collect the facts for the model card."""
        state = self.trainer.state
        return CardRecord(
            name=self.output.name,
            model_type=self.model.config.model_type,
            architecture=type(self.model).__name__,
            num_parameters=self.model.num_parameters(),
            labels=self.trainer.labels,
            settings=describe_training(
                self.model_arguments,
                self.data_arguments,
                self.args,
                sum(map(len, self.train_parts)),
                state.global_step,
                state.best_global_step,
                self.sources,
            ),
            metrics=metrics,
            eval_split=self.data_arguments.eval_split,
            num_eval_images=len(self.eval_items),
        )

    def save(self, metrics: dict[str, Any]):
        """Write model, processor, card and results; files appear in the output folder only once complete."""
        partial = self.output / ".model.partial"
        if self.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        # No process may write there before the main process has cleared it.
        self.trainer.accelerator.wait_for_everyone()
        with whole_or_not_at_all(partial, "The model"):
            # As an internal call it is not published, which has to wait for card and results.
            self.trainer.save_model(str(partial), _internal_call=True)
            if not self.is_main_process:
                return
            # Names of folders may not be UTF-8.
            card = str(model_card(self.card_record(metrics)))
            (partial / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")
            for path in sorted(partial.iterdir()):
                path.replace(self.output / path.name)
            partial.rmdir()
        measured = {name: value for name, value in metrics.items() if not math.isnan(value)}
        write_json(measured, self.output / RESULTS_FILE)
        if self.args.push_to_hub:
            self.publish()

    def publish(self):
        """Upload the model, its card and its results to the repository on the Hub that the arguments name."""
        upload_folder(
            repo_id=str(self.trainer.hub_model_id),
            folder_path=self.output,
            commit_message="Trained model",
            token=self.args.hub_token,
            revision=self.args.hub_revision,
            ignore_patterns=NOT_PUBLISHED,
        )

    def end(self):
        """Leave the process group; call after everything that needs the other processes."""
        self.trainer.end()
