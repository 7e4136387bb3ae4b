"""The card of a trained model."""

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from ..evaluation.report import SCORES, format_score, markdown_table


if TYPE_CHECKING:
    from .session import TrainingSession


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-segmentation
tags:
- {model_type}
- semantic-segmentation
- high-resolution
---

# {title}

{kind} with {parameters:,} parameters, for {num_labels}
classes: {labels}.

## Use

```python
import transformers_massformer  # pip install transformers-massformer
from transformers import pipeline

masks = pipeline("image-segmentation", model="{title}")("photo.jpg")  # one mask per class, at the photo's size
```

## Scores

{scores}

## Training

{training}
"""


# Where a model is described.
KINDS = {
    "massformer": "MaSSFormer ([arXiv:2503.18364](https://arxiv.org/abs/2503.18364))",
    "semask": "SeMask-FPN ([arXiv:2112.12782](https://arxiv.org/abs/2112.12782))",
}


def hardware(device: torch.device) -> str:
    """What was computed on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def score_table(labels: list[str], metrics: dict[str, float]) -> str:
    """Scores of the classes and their means, in the form of the paper's tables."""
    names = {"mean": "mean_{}", **{label: "{}_" + label for label in labels}}
    rows = [["class", *SCORES.values()]]
    for title, pattern in names.items():
        values = [metrics.get("eval_" + pattern.format(name), float("nan")) for name in SCORES]
        rows.append([title, *(format_score(name, value) for name, value in zip(SCORES, values, strict=True))])
    return markdown_table(rows)


def describe_training(session: "TrainingSession", metrics: dict[str, Any]) -> str:
    """Data, recipe and hardware, as a list."""
    args, data, model = session.args, session.data_arguments, session.model_arguments
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    precision = "bfloat16 (mixed)" if args.bf16 else "float16 (mixed)" if args.fp16 else "float32"
    start = model.backbone_weights or ("the given model" if model.model is not None else "random weights")
    pseudo_labels = ""
    if data.pseudo_labels is not None:
        pseudo_labels = f", with pseudo-labels of `{Path(data.pseudo_labels).name}` ({data.label_setting})"
    lines = {
        "Data": f"{len(session.train_pairs)} images of `{Path(str(data.data)).name}`, split `{data.train_split}`"
        f"{pseudo_labels}",
        "Samples": f"crops of {data.crop_size} x {data.crop_size} pixels; short sides of {min(data.short_sides)} to "
        f"{max(data.short_sides)} pixels; seed {args.seed}",
        "Steps": f"{session.trainer.state.global_step:,}, {batch} crops each, on {args.world_size} process(es)",
        "Optimiser": f"{getattr(args.optim, 'value', args.optim)}, learning rate {args.learning_rate:g} (backbone x "
        f"{args.backbone_learning_rate_factor:g}), weight decay {args.weight_decay:g}, gradients clipped to "
        f"{args.max_grad_norm:g}, schedule {getattr(args.lr_scheduler_type, 'value', args.lr_scheduler_type)}",
        "Backbone": f"started from `{Path(str(start)).name}`" + (", frozen" if args.freeze_backbone else ""),
        "Precision": precision,
        "Hardware": hardware(args.device),
        "Versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "Best checkpoint": f"by {args.metric_for_best_model}, step {session.trainer.state.best_global_step}"
        if args.load_best_model_at_end
        else "the last",
    }
    return "\n".join(f"* {title}: {text}" for title, text in lines.items())


def write_model_card(folder: Path, session: "TrainingSession", metrics: dict[str, Any]):
    """
    Writes README.md.

    Args:
        folder (`Path`): Where to.
        session ([`TrainingSession`]): What was trained, and how.
        metrics (`dict`): What was measured.
    """
    labels = session.trainer.labels
    scores = "Not evaluated."
    if "eval_mean_iou" in metrics:
        split = session.data_arguments.eval_split
        scores = f"On the {len(session.eval_pairs)} images of split `{split}`, at their own size.\n\n"
        scores += score_table(labels, metrics)
    card = CARD.format(
        title=session.output.name,
        model_type=session.model.config.model_type,
        kind=KINDS.get(session.model.config.model_type, f"`{type(session.model).__name__}`"),
        parameters=session.model.num_parameters(),
        num_labels=len(labels),
        labels=", ".join(labels),
        scores=scores.rstrip(),
        training=describe_training(session, metrics),
    )
    (folder / "README.md").write_text(card)
