"""Training options: the trainer's arguments, the model, and the data."""

import json
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy
from transformers.utils import logging

from ..data.transforms import MAX_LONG_SIDE, SHORT_SIDES
from ..utils.text import readable_names
from .classes import LabelSetting


logger = logging.get_logger(__name__)

# Normalisation layers that keep their running statistics.
FIXED_STATISTICS = ("none", "backbone", "all")
# Optimiser steps of the release, where neither steps nor epochs are given.
RELEASE_STEPS = 80_000
SEMANTIC_LOSS_WEIGHT = 0.4


@dataclass
class MaSSFormerTrainingArguments(TrainingArguments):
    """
    `transformers.TrainingArguments` with options for MaSSFormer. The defaults follow the release's recipe (AdamW,
    learning rate 3e-4, weight decay 0.05, gradients clipped to 0.01, cosine schedule over 80,000 steps without
    warm-up) and keep the checkpoint with the best Boundary IoU.

    Args:
        max_steps (`int`, *optional*):
            Total number of optimiser steps. Defaults to 80,000 (release) without `num_train_epochs`.
        num_train_epochs (`float`, *optional*):
            Passes over the training images, instead of `max_steps`. Both together are refused.
        backbone_learning_rate_factor (`float`, *optional*, defaults to 0.1):
            Learning rate of the backbone relative to `learning_rate` (release).
        offset_learning_rate_factor (`float`, *optional*, defaults to 1.0):
            Learning rate of the layers that compute the offsets of MaSSFormer's deformable convolutions, relative to
            `learning_rate` (release: 1).
        total_train_batch_size (`int`, *optional*):
            Images per optimiser step over all processes, reached by gradient accumulation, instead of
            `gradient_accumulation_steps`. As always in `transformers.Trainer`, each accumulated batch is normalised
            separately. The paper uses 16: 4 on each of 4 GPUs.
        freeze_backbone (`bool`, *optional*, defaults to `False`):
            Freeze the weights of the backbone and the statistics of its normalisation layers.
        train_backbone_norms (`bool`, *optional*, defaults to `False`):
            Train scale and shift of the backbone's batch normalisation layers. The release does not.
        fixed_norm_statistics (`str`, *optional*, defaults to `"none"`):
            Batch normalisation layers that use their running statistics without updating them: `"none"`,
            `"backbone"` or `"all"`. With `"all"`, a batch may hold a single image per process.
        semantic_loss_weight (`float`, *optional*):
            Loss weight of a SeMask backbone's semantic maps in models whose own loss ignores them; 0.4 by default.
            SeMask, MaSSFormer and the per-pixel baselines read this weight from their configuration, so that it is
            refused for them, as for models without such a backbone.
        eval_tile (`int`, *optional*):
            Evaluate in overlapping tiles of this size in pixels, as `massformer segment --tile` does. By default,
            photos are segmented whole.
    """

    learning_rate: float = field(default=3e-4, metadata={"help": "Learning rate of everything but the backbone."})
    weight_decay: float = field(
        default=0.05, metadata={"help": "Weight decay; norms, queries and level embeddings are exempt."}
    )
    max_grad_norm: float = field(default=0.01, metadata={"help": "Clip gradients to this norm."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule."})
    # Set after parsing, which tells what was given; transformers takes them for numbers.
    max_steps: int | None = field(  # ty: ignore[incompatible-attribute-override]
        default=None, metadata={"help": "Total number of optimiser steps; 80,000 without num_train_epochs."}
    )
    num_train_epochs: float | None = field(  # ty: ignore[incompatible-attribute-override]
        default=None, metadata={"help": "Passes over the training images, instead of max_steps."}
    )
    per_device_train_batch_size: int = field(default=4, metadata={"help": "Training images per batch and process."})
    per_device_eval_batch_size: int = field(default=1, metadata={"help": "Evaluation photos loaded per batch."})
    eval_strategy: str = field(default="steps", metadata={"help": "When to evaluate."})
    eval_steps: float | None = field(default=5_000, metadata={"help": "Steps between evaluations."})
    save_steps: float = field(default=5_000, metadata={"help": "Steps between checkpoints."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep, besides the best one."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between log entries."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best checkpoint, not the last."})
    metric_for_best_model: str | None = field(
        default="mean_boundary_iou", metadata={"help": "Metric that selects the best checkpoint."}
    )
    greater_is_better: bool | None = field(
        default=True, metadata={"help": "Whether a higher value of that metric is better."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Drop columns that the model's forward does not take."}
    )
    dataloader_num_workers: int = field(default=4, metadata={"help": "Processes that load photos."})
    dataloader_persistent_workers: bool = field(default=True, metadata={"help": "Keep workers between epochs."})

    backbone_learning_rate_factor: float = field(
        default=0.1, metadata={"help": "Learning rate of the backbone relative to learning_rate."}
    )
    offset_learning_rate_factor: float = field(
        default=1.0, metadata={"help": "Learning rate of deformable convolutions' offsets relative to learning_rate."}
    )
    total_train_batch_size: int | None = field(
        default=None,
        metadata={"help": "Images per step over all processes, by gradient accumulation; the paper uses 16."},
    )
    freeze_backbone: bool = field(default=False, metadata={"help": "Freeze the backbone."})
    train_backbone_norms: bool = field(
        default=False, metadata={"help": "Train scale and shift of the backbone's batch normalisation layers."}
    )
    fixed_norm_statistics: str = field(
        default="none",
        metadata={
            "help": "Batch normalisation layers that keep their running statistics.",
            "choices": FIXED_STATISTICS,
        },
    )
    semantic_loss_weight: float | None = field(
        default=None,
        metadata={"help": "Loss weight of a SeMask backbone's semantic maps in models whose loss ignores them (0.4)."},
    )
    eval_tile: int | None = field(
        default=None, metadata={"help": "Evaluate in overlapping tiles of this size in pixels, not on whole photos."}
    )

    def __post_init__(self):
        # PyTorch refuses persistent workers without workers.
        if self.dataloader_num_workers == 0:
            self.dataloader_persistent_workers = False
        self.choose_length()
        super().__post_init__()
        if self.fixed_norm_statistics not in FIXED_STATISTICS:
            raise ValueError(
                f"fixed_norm_statistics is {self.fixed_norm_statistics!r}; choose one of "
                f"{', '.join(FIXED_STATISTICS)}."
            )
        for name in ("backbone_learning_rate_factor", "offset_learning_rate_factor"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name} is {value}; it must be 0 or more.")
        if self.freeze_backbone and self.train_backbone_norms:
            raise ValueError("freeze_backbone and train_backbone_norms contradict each other; leave out one.")
        if self.total_train_batch_size is not None:
            steps = self.accumulation_steps(self.total_train_batch_size)
            if self.gradient_accumulation_steps not in (1, steps):
                raise ValueError(
                    f"total_train_batch_size {self.total_train_batch_size} needs gradient_accumulation_steps {steps}, "
                    f"not {self.gradient_accumulation_steps}; leave out one of the two."
                )
            self.gradient_accumulation_steps = steps

    def choose_length(self):
        """
        Set the length of the training: the given steps or epochs, or the release's steps. The other one is set to a
        number that transformers takes as not given.
        """
        # Not positive is transformers' way of not given.
        steps = self.max_steps if (self.max_steps or 0) > 0 else None
        if steps is not None and self.num_train_epochs:
            raise ValueError(
                f"max_steps {steps} and num_train_epochs {self.num_train_epochs} both set the length of the training; "
                "leave out one."
            )
        if self.num_train_epochs is not None and steps is None and not self.num_train_epochs > 0:
            raise ValueError(f"num_train_epochs is {self.num_train_epochs}; it must be more than 0.")
        if self.num_train_epochs:
            self.max_steps = -1
        else:
            self.max_steps, self.num_train_epochs = steps or RELEASE_STEPS, 0.0

    def fit_to_length(self, total_steps: int):
        """
        Check the settings that depend on the total number of steps, once it is known.

        Args:
            total_steps (`int`): The total number of optimiser steps.

        Raises:
            ValueError: If the learning rate would still be warming up at the end.
        """
        warmup_steps = self.get_warmup_steps(total_steps)
        if warmup_steps and warmup_steps >= total_steps:
            raise ValueError(
                f"The learning rate would not warm up within the training: warmup_steps is {self.warmup_steps}, and "
                f"there are {total_steps} steps. Lower warmup_steps."
            )
        if self.eval_strategy == IntervalStrategy.STEPS and (self.eval_steps or 0) > total_steps:
            logger.warning(
                f"eval_steps is {self.eval_steps}, more than all {total_steps} steps of the training; it is evaluated "
                "after the last step."
            )
            self.eval_steps = total_steps

    def accumulation_steps(self, total: int) -> int:
        """Return the number of batches of all processes that add up to `total` images."""
        at_once = self.train_batch_size * self.world_size
        if total < at_once or total % at_once:
            raise ValueError(
                f"total_train_batch_size is {total}, but it must be a multiple of {at_once}: {self.world_size} "
                f"process(es) with {self.train_batch_size} images each. Change it or per_device_train_batch_size."
            )
        return total // at_once


@dataclass
class ModelArguments:
    """
    Options that choose the model to train.

    Args:
        model (`str`, *optional*):
            A published variant of MaSSFormer (r50, r18-lite, swin-t, swin-b) or SeMask-FPN (semask-swin-t, -s, -b,
            -l), or the folder or Hub name of a segmentation model or of a configuration.
        model_config (`dict`, *optional*):
            Configuration fields to override. Without `model`, the complete configuration; its `model_type` defaults
            to MaSSFormer's.
        backbone_weights (`str`, *optional*): Pretrained weights of the backbone, see [`load_backbone_weights`].
        labels (`list[str]`, *optional*):
            Class names of the data in the order of their ids; or a file such as `classes.txt`, or a model's folder,
            see [`read_given_names`]. By default, those beside the data, else those of MaSS13K.
        new_classes (`bool`, *optional*, defaults to `False`):
            Start classes that `model` lacks from new weights. All others keep theirs, by name.
        add_class (`list[str]`, *optional*):
            New classes to add to the model; their ids follow the existing ones. See [`add_classes`].
    """

    model: str | None = field(default=None, metadata={"help": "A variant, or a folder with a model or configuration."})
    model_config: dict | str | None = field(
        default=None, metadata={"help": "Configuration fields to override, as JSON."}
    )
    backbone_weights: str | None = field(
        default=None, metadata={"help": "Pretrained weights of the backbone: a file, a folder or a name."}
    )
    labels: list[str] | None = field(
        default=None,
        metadata={
            "help": "Class names of the data, a file such as classes.txt, or a model's folder. Default: those beside "
            "the data, else MaSS13K's."
        },
    )
    new_classes: bool = field(default=False, metadata={"help": "Start classes that the model lacks from new weights."})
    add_class: list[str] | None = field(
        default=None, metadata={"help": "New classes to add to the model; their ids follow the existing ones."}
    )

    def __post_init__(self):
        for option in ("labels", "add_class"):
            if (names := getattr(self, option)) is not None:
                setattr(self, option, readable_names(names, f"--{option}"))

    def config_fields(self) -> dict[str, Any]:
        """
        Return `model_config` as a dict; the command line passes it as JSON.

        Raises:
            ValueError: If it is not a JSON object.
        """
        fields = self.model_config or {}
        if isinstance(fields, str):
            try:
                fields = json.loads(fields)
            except ValueError as error:
                raise ValueError(f"model_config is not valid JSON ({error}): {self.model_config}") from error
        if not isinstance(fields, dict):
            raise ValueError(f"model_config must be a mapping from field names to values, got {fields!r}.")
        return fields


@dataclass
class DataArguments:
    """
    Options that choose the training data.

    Args:
        data (`str`):
            Folder with MaSS13K, or with data in the same layout; or a YAML file that describes a mixture, see
            [`read_mixture`].
        mask_values (`str`, *optional*):
            Classes of the stored values of the folder's label maps, such as `"0:background,255:object"`; see
            [`parse_mask_values`].
        train_split (`str`, *optional*, defaults to `"train"`): Split to train on.
        eval_split (`str`, *optional*, defaults to `"validation"`): Split to evaluate on.
        max_eval_images (`int`, *optional*):
            Evaluate on this many evenly spaced photos of the split during training.
        crop_size (`int`, *optional*, defaults to 1024): Side of the training crops in pixels.
        short_sides (`list[int]`, *optional*): Photos are resized to one of these short sides in pixels.
        max_long_side (`int`, *optional*, defaults to 8192): Maximum long side of a resized photo in pixels.
        pseudo_labels (`str`, *optional*):
            Folder written by `massformer label`, whose label maps replace those of the data.
        label_setting ([`LabelSetting`], *optional*, defaults to `"reweighted"`):
            How pseudo-labels are used (paper, Table 3).
    """

    data: str | None = field(
        default=None, metadata={"help": "Folder in the layout of MaSS13K, or a YAML file that mixes several."}
    )
    mask_values: str | None = field(
        default=None,
        metadata={"help": "Classes of the stored values of label maps, such as 0:background,255:object."},
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(default="validation", metadata={"help": "Split to evaluate on."})
    max_eval_images: int | None = field(
        default=None, metadata={"help": "Evaluate on this many photos during training; on all by default."}
    )
    crop_size: int = field(default=1024, metadata={"help": "Side of the training crops in pixels."})
    short_sides: list[int] = field(
        default_factory=lambda: list(SHORT_SIDES),
        metadata={"help": "Photos are resized to one of these short sides."},
    )
    max_long_side: int = field(default=MAX_LONG_SIDE, metadata={"help": "Maximum long side of a resized photo."})
    pseudo_labels: str | None = field(
        default=None, metadata={"help": "Folder written by `massformer label`; train on its label maps."}
    )
    label_setting: LabelSetting = field(
        default=LabelSetting.reweighted,
        metadata={
            "help": "Use of pseudo-labels: suppress their edges, emphasise all edges, or train on pseudo-labels alone."
        },
    )
