"""Check that an exported model agrees with its original, and measure its time and memory."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from ..inference.predictor import ModelPredictor
from .runtime import OnnxPredictor


@dataclass(frozen=True)
class Agreement:
    """
    Agreement of an exported model with the model in PyTorch on one photograph.

    Attributes:
        photo (`str`): Name of the photograph.
        width (`int`): In pixels.
        height (`int`): In pixels.
        class_difference (`float`): The largest difference between class logits.
        mask_difference (`float`): The largest difference between mask logits.
        argmax_agreement (`float`): Share of the pixels that have the same label.
    """

    photo: str
    width: int
    height: int
    class_difference: float
    mask_difference: float
    argmax_agreement: float


@torch.inference_mode()
def agreement(
    name: str,
    photo: PIL.Image.Image,
    reference: ModelPredictor,
    queries: OnnxPredictor,
    label_maps: OnnxPredictor | None = None,
) -> Agreement:
    """
    Compare an exported model with its original on one photograph.

    Args:
        name (`str`): Name of the photograph, for the report.
        photo (`PIL.Image.Image`): RGB, upright.
        reference ([`ModelPredictor`]): The original, in float32.
        queries ([`OnnxPredictor`]): The graph that returns the logits of all queries.
        label_maps ([`OnnxPredictor`], *optional*):
            The graph that returns label maps. By default label maps are read from the queries.

    Returns:
        [`Agreement`]
    """
    size = (photo.height, photo.width)
    inputs, valid_size = reference.prepare(photo)
    outputs = reference.run(inputs)
    expected, _ = reference.read(outputs, inputs, valid_size, size, return_scores=False)
    differences = []
    for logits, found in zip(
        (outputs.class_queries_logits, outputs.masks_queries_logits), queries.run(photo), strict=True
    ):
        differences.append((logits - torch.from_numpy(found).float()).abs().max().item())
    del outputs, logits, found
    label_map = (label_maps or queries).predict_whole(photo).label_map
    same = (label_map == expected).float().mean().item()
    return Agreement(name, photo.width, photo.height, *differences, same)


def measure(model: Path, photo: PIL.Image.Image) -> dict[str, float | int | str | None]:
    """
    Measure the seconds and peak memory of an exported model on the CPU, in a process of its own.

    Returns:
        `dict`: `width`, `height`, and either `seconds` and `peak_bytes`, or `error` if it failed.
    """
    took: dict[str, float | int | str | None] = {"width": photo.width, "height": photo.height}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.npy"
        np.save(path, np.asarray(photo.convert("RGB")))
        command = [sys.executable, str(Path(__file__).with_name("measurement.py")), str(model), str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:] or ["killed, which is how most systems say out of memory"]
        return {**took, "error": last[0]}
    return {**took, **json.loads(result.stdout.splitlines()[-1])}
