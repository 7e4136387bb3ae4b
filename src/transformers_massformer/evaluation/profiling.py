"""Profile a model: parameters, operations, time and memory."""

import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import PIL.Image
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from ..inference.memory import PeakMemory
from ..inference.predictor import ModelPredictor
from ..models.deform_conv import ModulatedDeformConv2d
from ..utils.text import format_bytes


# Longest side of the warm-up photo in pixels. Timed runs stop after this number of runs or seconds.
WARM_UP_SIDE, MAX_RUNS, ENOUGH_SECONDS = 512, 3, 10.0


def plain_convolution(layer: ModulatedDeformConv2d, hidden_states: torch.Tensor, *ignored: Any) -> torch.Tensor:
    """Compute a plain convolution with the same matrix product as the deformable one."""
    return F.conv2d(hidden_states, layer.weight, padding=layer.weight.shape[-1] // 2)


def count_operations(model: PreTrainedModel, inputs: dict[str, torch.Size]) -> int:
    """
    Count the floating-point operations of one forward pass: convolutions, matrix products and attention, two per
    multiply-add. A deformable convolution counts as its matrix product. Nothing is computed.

    Args:
        model (`PreTrainedModel`):
            The model. A new model of its class and configuration is run on tensors without data.
        inputs (`dict[str, torch.Size]`): Shapes of its inputs; `pixel_values` is float32, all others are int64.
    """
    with FakeTensorMode(), mock.patch.object(ModulatedDeformConv2d, "forward", plain_convolution):
        twin = type(model)(model.config).eval()
        twin.requires_grad_(False)
        tensors = {
            name: torch.zeros(shape, dtype=torch.float32 if name == "pixel_values" else torch.int64)
            for name, shape in inputs.items()
        }
        # Not in inference mode, in which MaSSFormer may compute some rows twice.
        with FlopCounterMode(display=False) as counter:
            twin(**tensors)
    return counter.get_total_flops()


def blank_photo(width: int, height: int) -> PIL.Image.Image:
    """Create a photo of this size that shows a gradient."""
    return PIL.Image.linear_gradient("L").resize((width, height)).convert("RGB")


def synchronize(device: torch.device):
    """Wait for all queued work of an accelerator."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def run_times(
    step: Callable[[], object],
    device: torch.device,
    max_runs: int = MAX_RUNS,
    enough_seconds: float = ENOUGH_SECONDS,
) -> list[float]:
    """Measure the seconds of each run of a step, until `max_runs` runs or `enough_seconds` seconds in total."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < max_runs and sum(seconds) < enough_seconds):
        synchronize(device)
        start = time.perf_counter()
        step()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def profile(predictor: ModelPredictor, width: int, height: int) -> dict[str, Any]:
    """
    Measure the costs of segmenting a photo.

    Args:
        predictor ([`ModelPredictor`]): The model with its prediction options.
        width (`int`), height (`int`): Size of the photo in pixels.

    Returns:
        `dict`: `parameters`; `flops` of one forward pass at the model's input size, see [`count_operations`]; the
        median `seconds` from photo to label map over `runs`; the peak memory during these runs, `peak_bytes`, see
        [`PeakMemory`]; and `width`, `height`, `input_size` (height and width of the model's input), `device` and
        `dtype`.

    Raises:
        MemoryError: If the photo does not fit into memory.
    """
    photo = blank_photo(width, height)
    inputs = {**predictor.inputs_of(photo), **predictor.constant_inputs}
    shapes = {name: value.shape for name, value in inputs.items()}
    predictor(blank_photo(min(width, WARM_UP_SIDE), min(height, WARM_UP_SIDE)))
    with PeakMemory(predictor.device) as memory:
        seconds = run_times(lambda: predictor(photo), predictor.device)
    return {
        "width": width,
        "height": height,
        "input_size": list(shapes["pixel_values"][-2:]),
        "parameters": predictor.model.num_parameters(),
        "flops": count_operations(predictor.model, shapes),
        "seconds": statistics.median(seconds),
        "runs": len(seconds),
        "peak_bytes": memory.bytes,
        "device": predictor.device.type,
        "dtype": str(predictor.dtype).removeprefix("torch."),
    }


def backbone_name(model: nn.Module) -> str:
    """Return the name of the backbone in tables."""
    config: Any = getattr(model.config, "backbone_config", None) or model.config
    return getattr(config, "backbone", None) or config.model_type


def cost_cells(costs: dict[str, Any]) -> list[str]:
    """Format parameters, operations, time and memory as in the paper's Table 2."""
    return [
        f"{costs['parameters'] / 1e6:.2f}M",
        f"{costs['flops'] / 1e9:.0f}G",
        f"{costs['seconds']:.2f} s",
        format_bytes(costs["peak_bytes"]),
    ]


def cost_note(costs: dict[str, Any]) -> str:
    """Explain the conventions of a row of costs."""
    height, width = costs["input_size"]
    times = "one run" if costs["runs"] == 1 else f"median of {costs['runs']} runs"
    what = "whole process" if costs["device"] == "cpu" else "allocator"
    return (
        f"For a photo of {costs['width']} x {costs['height']} pixels (width x height), passed to the model as "
        f"{width} x {height}, on {costs['device']} in {costs['dtype']}. FLOPs: two per multiply-add, of convolutions, "
        "matrix products and attention in one forward pass; a deformable convolution counts as its matrix product. "
        f"Time: from photo to label map of the same size, {times}. Memory: peak of the {what}."
    )
