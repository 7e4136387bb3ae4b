"""Model cards of trained models."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import ModelCard, ModelCardData

from ..data.mixture import Source
from ..metrics.tables import SCORES, score_rows
from ..utils.text import markdown_table
from .arguments import DataArguments, MaSSFormerTrainingArguments, ModelArguments


TEMPLATE = Path(__file__).with_name("card_template.md")
# Descriptions of model types with a paper.
KINDS = {
    "massformer": "MaSSFormer ([arXiv:2503.18364](https://arxiv.org/abs/2503.18364))",
    "semask": "SeMask-FPN ([arXiv:2112.12782](https://arxiv.org/abs/2112.12782))",
}


@dataclass(frozen=True)
class CardRecord:
    """
    Facts on a model card.

    Attributes:
        name (`str`): Name of the model, the last part of its folder.
        model_type (`str`): Its `config.model_type`.
        architecture (`str`): Name of its class.
        num_parameters (`int`): Number of its parameters.
        labels (`list[str]`): Class names in the order of their ids.
        settings (`dict[str, str]`): Data, recipe, hardware and versions of the training, by title.
        metrics (`dict[str, Any]`): Results of [`MaSSFormerTrainer.evaluate`]; without scores if not evaluated.
        eval_split (`str`): Split of the evaluation.
        num_eval_images (`int`): Number of its images.
    """

    name: str
    model_type: str
    architecture: str
    num_parameters: int
    labels: list[str]
    settings: dict[str, str]
    metrics: dict[str, Any]
    eval_split: str
    num_eval_images: int


def hardware(device: torch.device) -> str:
    """Return the name of a device for display."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def describe_training(
    model: ModelArguments,
    data: DataArguments,
    args: MaSSFormerTrainingArguments,
    num_images: int,
    steps: int,
    best_step: int | None,
    sources: Sequence[Source] = (),
) -> dict[str, str]:
    """
    Describe data, recipe, hardware and versions of a training.

    Args:
        model ([`ModelArguments`]), data ([`DataArguments`]), args ([`MaSSFormerTrainingArguments`]): Its options.
        num_images (`int`): Number of training images.
        steps (`int`): Number of optimiser steps.
        best_step (`int`, *optional*): Step of the best checkpoint.
        sources (`Sequence[Source]`, *optional*): The sources of a mixture.
    """
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    precision = "bfloat16 (mixed)" if args.bf16 else "float16 (mixed)" if args.fp16 else "float32"
    start = "the initial model" if model.model is not None else "random weights"
    if model.backbone_weights is not None:
        start = f"`{Path(model.backbone_weights).name}`"
    pseudo_labels = ""
    if data.pseudo_labels is not None:
        pseudo_labels = f", with pseudo-labels of `{Path(data.pseudo_labels).name}` ({data.label_setting})"
    total = sum(source.share for source in sources)
    mixture = ": " + ", ".join(source.describe(total) for source in sources) if sources else ""
    return {
        "Data": f"{num_images} images of `{Path(str(data.data)).name}`, split `{data.train_split}`{pseudo_labels}"
        f"{mixture}",
        "Samples": f"crops of {data.crop_size} x {data.crop_size} pixels; short sides of {min(data.short_sides)} to "
        f"{max(data.short_sides)} pixels; seed {args.seed}",
        "Steps": f"{steps:,}, {batch} crops each, on {args.world_size} process(es)",
        "Optimiser": f"{getattr(args.optim, 'value', args.optim)}, learning rate {args.learning_rate:g} (backbone x "
        f"{args.backbone_learning_rate_factor:g}, offsets x {args.offset_learning_rate_factor:g}), weight decay "
        f"{args.weight_decay:g}, gradients clipped to {args.max_grad_norm:g}, schedule "
        f"{getattr(args.lr_scheduler_type, 'value', args.lr_scheduler_type)}",
        "Backbone": f"started from {start}" + (", frozen" if args.freeze_backbone else ""),
        "Precision": precision,
        "Hardware": hardware(args.device),
        "Versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "Best checkpoint": f"by {args.metric_for_best_model}, step {best_step}"
        if args.load_best_model_at_end
        else "the last",
    }


def score_table(labels: Sequence[str], metrics: Mapping[str, Any]) -> str:
    """Return a Markdown table of the trainer's scores, or an empty text if there are none."""
    if "eval_mean_iou" not in metrics:
        return ""
    means = {f"mean_{name}": metrics[f"eval_mean_{name}"] for name in SCORES}
    per_class = {f"per_category_{name}": [metrics[f"eval_{name}_{label}"] for label in labels] for name in SCORES}
    return markdown_table(score_rows(labels, {**means, **per_class}))


def model_card(record: CardRecord) -> ModelCard:
    """Render the card of a trained model."""
    data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=[record.model_type, "semantic-segmentation", "high-resolution"],
    )
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        record=record,
        kind=KINDS.get(record.model_type, f"`{record.architecture}`"),
        scores=score_table(record.labels, record.metrics).rstrip(),
    )
