"""Run `massformer train` on a tiny model."""

from pathlib import Path

import yaml

from support.commands import run
from support.tiny import TINY_FIELDS


# A recipe that trains within a second.
TINY = {
    "model_config": {**TINY_FIELDS, "num_hidden_layers": 2},
    "crop_size": 64,
    "short_sides": [72, 96],
    "max_steps": 4,
    "per_device_train_batch_size": 2,
    "dataloader_num_workers": 0,
    "eval_steps": 2,
    "save_steps": 2,
    "logging_steps": 1,
    "use_cpu": True,
    "disable_tqdm": True,
}


def write_recipe(path: Path, **fields) -> Path:
    """Write a recipe: `TINY` with some fields replaced."""
    path.write_text(yaml.safe_dump({**TINY, **fields}))
    return path


def train(data: Path, recipe: Path, output: Path, *options: str, code: int = 0):
    """Run the command in this process and check its exit code."""
    return run("train", "--data", data, "--recipe", recipe, "--output", output, *options, code=code)
