"""What can be set for a training."""

import json
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from ..data.transforms import MAX_LONG_SIDE, SHORT_SIDES
from .classes import LabelSetting


# Which normalisation layers keep their running statistics as they are.
FIXED_STATISTICS = ("none", "backbone", "all")


@dataclass
class MaSSFormerTrainingArguments(TrainingArguments):
    """
    `transformers.TrainingArguments` with the release's recipe as defaults (AdamW, learning rate 3e-4, weight decay
    0.05, gradients clipped to 0.01, cosine over 80,000 steps without warm-up), the best checkpoint by Boundary IoU,
    and what is this model's own.

    Args:
        backbone_learning_rate_factor (`float`, *optional*, defaults to 0.1):
            Factor of the learning rate in the backbone (release).
        total_train_batch_size (`int`, *optional*):
            Images per step over all processes, reached by gradient accumulation; it takes the place of
            `gradient_accumulation_steps`. Accumulated batches are normalised one by one, as everywhere in
            `transformers.Trainer`. The paper has 16: 4 on each of 4 GPUs.
        freeze_backbone (`bool`, *optional*, defaults to `False`):
            Leave the backbone as it is: its weights and the statistics of its normalisation layers.
        train_backbone_norms (`bool`, *optional*, defaults to `False`):
            Train scale and shift of the backbone's batch normalisations. The release does not.
        fixed_norm_statistics (`str`, *optional*, defaults to `"none"`):
            Batch normalisations that use their running statistics and leave them as they are: `"none"`, `"backbone"`
            or `"all"`. With all of them a batch may hold a single image per process.
        semantic_loss_weight (`float`, *optional*, defaults to 0.4):
            Weight of the semantic maps of a SeMask backbone in a model of another kind, whose loss leaves them out;
            SeMask, MaSSFormer and the per-pixel baselines have it in their configuration.
        eval_tile (`int`, *optional*):
            Evaluate in windows of so many pixels. By default photographs stay whole.
    """

    learning_rate: float = field(default=3e-4, metadata={"help": "Learning rate of the decoders."})
    weight_decay: float = field(default=0.05, metadata={"help": "Of all weights but norms, queries and levels."})
    max_grad_norm: float = field(default=0.01, metadata={"help": "Gradients are clipped to this norm."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Course of the learning rate."})
    max_steps: int = field(default=80_000, metadata={"help": "Optimiser steps in all."})
    per_device_train_batch_size: int = field(default=4, metadata={"help": "Images per step and process."})
    per_device_eval_batch_size: int = field(default=1, metadata={"help": "Photographs read together."})
    eval_strategy: str = field(default="steps", metadata={"help": "When to evaluate."})
    eval_steps: float | None = field(default=5_000, metadata={"help": "Steps between evaluations."})
    save_steps: float = field(default=5_000, metadata={"help": "Steps between checkpoints."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept beside the best one."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between log entries."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best checkpoint, not the last."})
    metric_for_best_model: str | None = field(default="mean_boundary_iou", metadata={"help": "What is best."})
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether more of it is better."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Columns are read by the data sets."})
    dataloader_num_workers: int = field(default=4, metadata={"help": "Processes that read photographs."})
    dataloader_persistent_workers: bool = field(default=True, metadata={"help": "Keep them between epochs."})

    backbone_learning_rate_factor: float = field(
        default=0.1, metadata={"help": "Factor of the learning rate in the backbone."}
    )
    total_train_batch_size: int | None = field(
        default=None, metadata={"help": "Images per step over all processes, by accumulation; 16 in the paper."}
    )
    freeze_backbone: bool = field(default=False, metadata={"help": "Leave the backbone as it is."})
    train_backbone_norms: bool = field(
        default=False, metadata={"help": "Train scale and shift of the backbone's batch normalisations."}
    )
    fixed_norm_statistics: str = field(
        default="none",
        metadata={"help": "Batch normalisations that keep their running statistics.", "choices": FIXED_STATISTICS},
    )
    semantic_loss_weight: float = field(
        default=0.4, metadata={"help": "Weight of a SeMask backbone's semantic maps in models of another kind."}
    )
    eval_tile: int | None = field(default=None, metadata={"help": "Evaluate in windows of so many pixels."})

    def __post_init__(self):
        # Workers cannot persist where there are none.
        if self.dataloader_num_workers == 0:
            self.dataloader_persistent_workers = False
        super().__post_init__()
        if self.fixed_norm_statistics not in FIXED_STATISTICS:
            raise ValueError(
                f"fixed_norm_statistics is {self.fixed_norm_statistics!r}; choose one of "
                f"{', '.join(FIXED_STATISTICS)}."
            )
        if self.backbone_learning_rate_factor < 0:
            raise ValueError(
                f"backbone_learning_rate_factor is {self.backbone_learning_rate_factor}; it must be 0 or more."
            )
        if self.total_train_batch_size is not None:
            self.gradient_accumulation_steps = self.accumulation_steps(self.total_train_batch_size)

    def accumulation_steps(self, total: int) -> int:
        """How many batches of all processes make so many images."""
        at_once = self.train_batch_size * self.world_size
        if total < at_once or total % at_once:
            raise ValueError(
                f"total_train_batch_size is {total}, but {self.world_size} process(es) with {self.train_batch_size} "
                f"images each take {at_once} at once: it must be a multiple of that. Change it or "
                "per_device_train_batch_size."
            )
        return total // at_once


@dataclass
class ModelArguments:
    """
    Which model to train.

    Args:
        model (`str`, *optional*):
            A published variant of MaSSFormer (r50, r18-lite, swin-t, swin-b) or SeMask-FPN (semask-swin-t, -s, -b,
            -l), or the folder or Hub name of a segmentation model or of a configuration.
        model_config (`dict`, *optional*):
            Fields of its configuration to be set otherwise; without `model`, the configuration, whose `model_type` is
            MaSSFormer's unless it is named.
        backbone_weights (`str`, *optional*): See [`load_backbone_weights`].
        labels (`list[str]`, *optional*): Names of the classes, in the order of their ids. By default MaSS13K's.
        add_class (`list[str]`, *optional*):
            Classes that the model does not know yet; their ids follow those that it knows. See [`add_classes`].
    """

    model: str | None = field(default=None, metadata={"help": "A variant, or a folder with a model or configuration."})
    model_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of the configuration to be set otherwise, as JSON."}
    )
    backbone_weights: str | None = field(
        default=None, metadata={"help": "Weights to start the backbone from: a file, a folder or a name."}
    )
    labels: list[str] | None = field(default=None, metadata={"help": "Names of the classes; by default MaSS13K's."})
    add_class: list[str] | None = field(
        default=None, metadata={"help": "Classes that the model does not know yet; their ids follow the others."}
    )

    def config_fields(self) -> dict[str, Any]:
        """
        `model_config`, which the command line gives as JSON.

        Raises:
            ValueError: If it is none.
        """
        fields = self.model_config or {}
        if isinstance(fields, str):
            try:
                fields = json.loads(fields)
            except ValueError as error:
                raise ValueError(f"model_config is no JSON ({error}): {self.model_config}") from error
        if not isinstance(fields, dict):
            raise ValueError(f"model_config must hold fields by name, got {fields!r}.")
        return fields


@dataclass
class DataArguments:
    """
    What to train on.

    Args:
        data (`str`): Folder of MaSS13K, or of data in its layout.
        train_split (`str`, *optional*, defaults to `"train"`): Split to train on.
        eval_split (`str`, *optional*, defaults to `"validation"`): Split to evaluate on.
        max_eval_images (`int`, *optional*): Evaluate on so many of its photographs, evenly spread.
        crop_size (`int`, *optional*, defaults to 1024): Side of the training crops in pixels.
        short_sides (`list[int]`, *optional*): Photographs are resized to one of these short sides.
        max_long_side (`int`, *optional*, defaults to 8192): No side of a resized photograph is longer.
        pseudo_labels (`str`, *optional*):
            Folder of `massformer label`, whose label maps are trained on in place of the data's.
        label_setting ([`LabelSetting`], *optional*, defaults to `"reweighted"`): How they are used (paper, Table 3).
    """

    data: str | None = field(default=None, metadata={"help": "Folder of MaSS13K, or of data in its layout."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(default="validation", metadata={"help": "Split to evaluate on."})
    max_eval_images: int | None = field(default=None, metadata={"help": "Evaluate on so many photographs."})
    crop_size: int = field(default=1024, metadata={"help": "Side of the training crops in pixels."})
    short_sides: list[int] = field(
        default_factory=lambda: list(SHORT_SIDES),
        metadata={"help": "Photographs are resized to one of these short sides."},
    )
    max_long_side: int = field(default=MAX_LONG_SIDE, metadata={"help": "No side of a resized photograph is longer."})
    pseudo_labels: str | None = field(
        default=None, metadata={"help": "Folder of `massformer label`, to train on its label maps."}
    )
    label_setting: LabelSetting = field(
        default=LabelSetting.reweighted,
        metadata={"help": "Suppress edges of pseudo-labels, emphasise all edges, or train on pseudo-labels alone."},
    )
