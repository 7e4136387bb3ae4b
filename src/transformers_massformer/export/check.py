"""How well an exported model agrees with the model it was exported from, and what a photograph takes it."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from ..inference.segmenter import Segmenter
from ..models.semantic_readout import read_semantic_map
from . import measurement
from .runtime import OnnxSegmenter


@dataclass(frozen=True)
class Agreement:
    """
    What an exported model makes of a photograph, beside the model in PyTorch.

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
    reference: Segmenter,
    queries: OnnxSegmenter,
    label_maps: OnnxSegmenter | None = None,
) -> Agreement:
    """
    Compares an exported model with its original on one photograph.

    Args:
        name (`str`): Of the photograph, for the report.
        photo (`PIL.Image.Image`): RGB, upright.
        reference ([`Segmenter`]): The original, in float32.
        queries ([`OnnxSegmenter`]): The graph that gives the logits of all queries.
        label_maps ([`OnnxSegmenter`], *optional*):
            The graph that gives label maps. By default label maps are read from the queries.

    Returns:
        [`Agreement`]
    """
    size = (photo.height, photo.width)
    outputs = reference.model(**reference.processor(images=photo, return_tensors="pt"))
    expected, _ = read_semantic_map(outputs.class_queries_logits[0], outputs.masks_queries_logits[0], size, size)
    differences = []
    for logits, found in zip(
        (outputs.class_queries_logits, outputs.masks_queries_logits), queries.run(photo), strict=True
    ):
        differences.append((logits - torch.from_numpy(found).float()).abs().max().item())
    del outputs, logits, found
    label_map = (label_maps or queries).segment_whole(photo).label_map
    same = float(np.mean(label_map == expected.numpy()))
    return Agreement(name, photo.width, photo.height, *differences, same)


def measure(model: Path, photo: PIL.Image.Image) -> dict[str, float | int | str | None]:
    """
    Seconds and peak memory of an exported model on the CPU, in a process of its own.

    Returns:
        `dict`: `width`, `height`, and either `seconds` and `peak_bytes`, or `error` if it came to no end.
    """
    took: dict[str, float | int | str | None] = {"width": photo.width, "height": photo.height}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.npy"
        np.save(path, np.asarray(photo.convert("RGB")))
        command = [sys.executable, measurement.__file__, str(model), str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:] or ["killed, which is how most systems say out of memory"]
        return {**took, "error": last[0]}
    return {**took, **json.loads(result.stdout.splitlines()[-1])}
