"""
Run one job of `benchmark_model.py` in its own process: the only argument is the job as JSON, the output a line of JSON
per key.
"""

import copy
import dataclasses
import importlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.ops import deform_conv2d

from transformers_massformer import (
    MASS13K_LABELS,
    MaSSFormerConfig,
    MaSSFormerForSemanticSegmentation,
    MaSSFormerImageProcessor,
)
from transformers_massformer.conversion import variant_config
from transformers_massformer.evaluation.profiling import count_operations, run_times, synchronize
from transformers_massformer.inference.memory import OUT_OF_MEMORY, PeakMemory
from transformers_massformer.models.deform_conv import ENGINES, ModulatedDeformConv2d
from transformers_massformer.models.modeling_massformer import MaSSFormerDeformableConvLayer
from transformers_massformer.training.classes import label_names


HUB = Path(__file__).parents[2] / "hub"
# Largest side of the image for the warm-up on a CPU.
WARM_UP_SIDE = 2048
# Timed runs stop after this number of runs or seconds.
LIMITS = (5, 2.0)
# Standard deviation of the offsets of deformable convolutions; those of an untrained model are all zero.
OFFSET_PIXELS = 2.0
# Input channels, output channels, kernel size and stride of every deformable convolution of MaSSFormer-R50.
DEFORMABLE_LAYERS = {
    "CST, semantic": (128, 128, 3, 32),
    "CST, detail": (128, 128, 3, 16),
    "RFB, k = 1": (128, 32, 1, 8),
    "RFB, k = 3": (128, 32, 3, 8),
    "RFB, k = 5": (128, 32, 5, 8),
    "RFB, k = 7": (128, 32, 7, 8),
    "LSE": (67, 64, 3, 2),
    "EGF": (64, 64, 3, 2),
}
FORWARD, FORWARD_BACKWARD = "forward", "forward + backward"
# What the errors of an engine are measured of: its output, and the gradients of its inputs.
TENSORS = ("output", "input", "offsets", "modulation", "weight")
# Substrings of out-of-memory errors of PyTorch, Python and the C library.
OUT_OF_MEMORY_MESSAGES = (*OUT_OF_MEMORY, "allocate memory", "memoryerror", "memory object", "thread creation")
# Sides of the matrices, and bytes of the copy, that measure the machine's peak rates.
MATRIX_SIDE, COPIED_BYTES = {"cpu": 4096, "cuda": 16384}, 2**29


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A model and how it is run."""

    # A key of `PEERS`, "massformer-" and a variant, or a folder of `HUB`.
    model: str
    # Of the weights; in training, of autocast.
    dtype: str = "float32"
    # Whether to fold batch normalisations into convolutions, as the command line does.
    fuse: bool = False
    # Engine of deformable convolutions; by default the model's own choice.
    engine: str | None = None
    compile: bool = False


RESNET50 = {"model_type": "resnet", "out_features": ["stage1", "stage2", "stage3", "stage4"]}
SEGFORMER_B2 = {"depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768}
# Model, image processor and configuration fields of the other models.
PEERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "mask2former-r50": (
        transformers.Mask2FormerForUniversalSegmentation,
        transformers.Mask2FormerImageProcessor,
        {"backbone_config": RESNET50, "num_queries": 100},
    ),
    "maskformer-r50": (
        transformers.MaskFormerForInstanceSegmentation,
        transformers.MaskFormerImageProcessor,
        {"backbone_config": RESNET50},
    ),
    "segformer-b2": (
        transformers.SegformerForSemanticSegmentation,
        transformers.SegformerImageProcessor,
        SEGFORMER_B2,
    ),
}


def create(model: str, engine: str | None = None) -> tuple[Any, Any]:
    """Create a model with random weights, in eval mode, and its image processor."""
    torch.manual_seed(0)
    if model in PEERS:
        model_class, processor_class, fields = PEERS[model]
        config = model_class.config_class(**copy.deepcopy(fields), **label_names(MASS13K_LABELS))
    else:
        model_class, processor_class = MaSSFormerForSemanticSegmentation, MaSSFormerImageProcessor
        overrides: dict[str, Any] = {} if engine is None else {"deform_conv_engine": engine}
        if (HUB / model / "config.json").exists():
            config = MaSSFormerConfig.from_pretrained(HUB / model, **overrides)
        else:
            config = variant_config(model.removeprefix("massformer-"), **overrides)
    return model_class(config).eval(), processor_class()


def spread_offsets(model: nn.Module):
    """Give the deformable convolutions of an untrained model offsets of about `OFFSET_PIXELS`."""

    def rescale(offset: nn.Module, arguments: tuple, output: torch.Tensor) -> torch.Tensor:
        factor = OFFSET_PIXELS / output.detach().std()
        offset.get_parameter("weight").data.mul_(factor)
        return output * factor

    hooks = []
    for layer in model.modules():
        if isinstance(layer, MaSSFormerDeformableConvLayer):
            nn.init.normal_(layer.offset.weight)
            hooks.append(layer.offset.register_forward_hook(rescale))
    if hooks:
        # Not in inference mode, where MaSSFormer may compute its maps in bands. Without gradients, because the
        # activations for a backward pass would count in the measured peak.
        model.requires_grad_(False)
        model(pixel_values=torch.randn(1, 3, 512, 512))
        model.requires_grad_(True)
    for hook in hooks:
        hook.remove()


def build(contestant: Contestant, device: str) -> tuple[Any, Any]:
    """Create the contestant's model, in float32 on the device, and its image processor."""
    model, processor = create(contestant.model, contestant.engine)
    spread_offsets(model)
    if contestant.fuse:
        model.fuse()
    if contestant.compile:
        model.compile()
    return model.to(device), processor


def time_and_memory(step: Callable[[], object], device: str) -> dict[str, float]:
    """Measure the median time of a step and the peak memory during its runs."""
    with PeakMemory(device) as memory:
        seconds = run_times(step, torch.device(device), *LIMITS)
    values = {"seconds": statistics.median(seconds)}
    if memory.bytes is not None:
        values["peak_bytes"] = memory.bytes
    return values


def warm_up_size(size: list[int], device: str, compiled: bool = False) -> list[int]:
    """Limit the image for the warm-up on a CPU; tuned or compiled kernels need the actual size."""
    if compiled or device != "cpu":
        return size
    return [min(side, WARM_UP_SIDE) for side in size]


def inference(key: dict[str, Any], device: str) -> dict[str, float]:
    """Measure inference, from pixel values on the device to the label map at the image's own size."""
    contestant = Contestant(**key["contestant"])
    dtype = getattr(torch, contestant.dtype)
    model, processor = build(contestant, device)
    model.to(dtype)

    @torch.inference_mode()
    def segment(pixel_values: torch.Tensor):
        outputs = model(pixel_values=pixel_values)
        processor.post_process_semantic_segmentation(outputs, target_sizes=[tuple(pixel_values.shape[-2:])])

    segment(torch.randn(1, 3, *warm_up_size(key["size"], device, contestant.compile), dtype=dtype, device=device))
    pixel_values = torch.randn(1, 3, *key["size"], dtype=dtype, device=device)
    return time_and_memory(lambda: segment(pixel_values), device)


def training_inputs(model: str, batch_size: int, size: list[int], device: str) -> dict[str, Any]:
    """Create random crops and labels in squares of 32 pixels, as the model's keyword arguments."""
    rows, columns = size[0] // 32, size[1] // 32
    squares = torch.arange(rows * columns).view(1, rows, columns) % len(MASS13K_LABELS)
    labels = squares.repeat_interleave(32, 1).repeat_interleave(32, 2).expand(batch_size, -1, -1).to(device)
    inputs: dict[str, Any] = {"pixel_values": torch.randn(batch_size, 3, *size, device=device)}
    if model in ("mask2former-r50", "maskformer-r50"):
        classes = labels.unique()
        inputs["mask_labels"] = [(label_map == classes[:, None, None]).float() for label_map in labels]
        inputs["class_labels"] = [classes] * batch_size
    else:
        inputs["labels"] = labels
    return inputs


def training(key: dict[str, Any], device: str) -> dict[str, float]:
    """Measure forward pass, loss, backward pass and one AdamW step, on crops on the device."""
    contestant = Contestant(**key["contestant"])
    dtype = getattr(torch, contestant.dtype)
    model, _ = build(contestant, device)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(inputs: dict[str, Any]):
        optimizer.zero_grad()
        with torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32):
            loss = model(**inputs).loss
        loss.backward()
        optimizer.step()

    step(training_inputs(contestant.model, key["batch_size"], warm_up_size(key["size"], device), device))
    inputs = training_inputs(contestant.model, key["batch_size"], key["size"], device)
    return time_and_memory(lambda: step(inputs), device)


def flops(key: dict[str, Any], device: str) -> dict[str, float]:
    """Count the operations of one forward pass, see `count_operations`."""
    with FakeTensorMode():
        model, _ = create(key["model"])
    return {"flops": count_operations(model, {"pixel_values": torch.Size([1, 3, *key["size"]])})}


def deformable_function(engine: str, weight: nn.Parameter) -> Callable[..., torch.Tensor]:
    """
    Return a deformable convolution as a function of input, offsets and modulation: torchvision's operator in float32,
    as the release calls it, deformops' replacement for it, or this package's layer with the engine.
    """
    out_channels, in_channels, kernel_size, _ = weight.shape
    padding = (kernel_size // 2, kernel_size // 2)
    if engine == "torchvision":
        return lambda x, offsets, modulation: deform_conv2d(
            x.float(), offsets.float(), weight.float(), padding=padding, mask=modulation.float()
        ).to(x.dtype)
    if engine == "deformops":
        replacement = importlib.import_module("deformops.integrations.torchvision").deform_conv2d
        return lambda x, offsets, modulation: replacement(x, offsets, weight, padding=padding, mask=modulation)
    layer = ModulatedDeformConv2d(in_channels, out_channels, kernel_size, engine=engine)
    layer.weight = weight
    return layer


def deformable(key: dict[str, Any], device: str) -> dict[str, float]:
    """Measure one deformable convolution of MaSSFormer-R50 on a feature map of the size that the image gives."""
    torch.manual_seed(0)
    in_channels, out_channels, kernel_size, stride = DEFORMABLE_LAYERS[key["layer"]]
    height, width = (side // stride for side in key["size"])

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=getattr(torch, key["dtype"]), device=device)

    x, modulation = random(1, in_channels, height, width), random(1, kernel_size**2, height, width).sigmoid()
    offsets = OFFSET_PIXELS * random(1, 2 * kernel_size**2, height, width)
    gradient = random(1, out_channels, height, width)
    weight = nn.Parameter(random(out_channels, in_channels, kernel_size, kernel_size))
    convolve = deformable_function(key["engine"], weight)

    @torch.inference_mode()
    def forward():
        convolve(x, offsets, modulation)

    def forward_backward():
        inputs = [tensor.requires_grad_() for tensor in (x, offsets, modulation)]
        torch.autograd.grad(convolve(*inputs), [*inputs, weight], gradient)

    step = forward if key["step"] == FORWARD else forward_backward
    step()
    return {"seconds": statistics.median(run_times(step, torch.device(device), *LIMITS))}


def accuracy(key: dict[str, Any], device: str) -> dict[str, float]:
    """
    Measure the relative errors |x - y| / |y| of an engine's output and gradients, for the rows that the key names.
    y is from torchvision's operator in float64, given the same rounded inputs.
    """
    torch.manual_seed(0)
    (in_channels, out_channels), (height, width), (first, last) = key["channels"], key["size"], key["rows"]
    side, dtype = key["kernel_size"], getattr(torch, key["dtype"])

    def random(channels: int, rows: int) -> torch.Tensor:
        return torch.randn(2, channels, rows, width, device=device)

    # Sixteenths of a pixel: exact in float32, and never a whole number, where gradients jump.
    offsets = (random(2 * side**2, last - first) * key["offset_pixels"] * 16).floor() / 16 + 1 / 32
    weight = torch.randn(out_channels, in_channels, side, side, device=device) / (side * in_channels**0.5)
    modulation = random(side**2, last - first).sigmoid()
    inputs = [random(in_channels, height).to(dtype), offsets, modulation.to(dtype), weight.to(dtype)]
    upstream = random(out_channels, last - first).to(dtype)

    def output_and_gradients(engine: str, leaves: list[torch.Tensor], upstream: torch.Tensor) -> list[torch.Tensor]:
        leaves = [x.requires_grad_() for x in leaves]
        output = ENGINES[engine](*leaves, first_row=first)
        return [output.detach(), *torch.autograd.grad(output, leaves, upstream)]

    exact = output_and_gradients("torchvision", [x.double() for x in inputs], upstream.double())
    found = output_and_gradients(key["engine"], inputs, upstream)
    return {
        name: ((x.double() - y).norm() / y.norm()).item() for name, x, y in zip(TENSORS, found, exact, strict=True)
    }


def shares(key: dict[str, Any], device: str) -> dict[str, float]:
    """Measure the share of MaSSFormer-R50's forward pass in deformable convolutions, excluding offset prediction."""
    dtype = getattr(torch, key["dtype"])
    model, _ = build(Contestant("massformer-r50", fuse=True, engine=key["engine"]), device)
    model.to(dtype)
    spent: list[float] = []

    def start(*ignored):
        synchronize(torch.device(device))
        spent.append(-time.perf_counter())

    def stop(*ignored):
        synchronize(torch.device(device))
        spent[-1] += time.perf_counter()

    for layer in model.modules():
        if isinstance(layer, ModulatedDeformConv2d):
            layer.register_forward_pre_hook(start)
            layer.register_forward_hook(stop)

    @torch.inference_mode()
    def forward(size: list[int]):
        model(pixel_values=torch.randn(1, 3, *size, dtype=dtype, device=device))

    forward(warm_up_size(key["size"], device))
    spent.clear()
    (seconds,) = run_times(lambda: forward(key["size"]), torch.device(device), 1, 0)
    return {"seconds": seconds, "deformable_seconds": sum(spent)}


def ceilings(key: dict[str, Any], device: str) -> dict[str, float]:
    """Measure a peak rate of the machine: a large matrix product in a dtype, or a copy from memory to memory."""
    if key["ceiling"] == "copy":
        source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        work, step = 2 * COPIED_BYTES, lambda: target.copy_(source)
    else:
        side = MATRIX_SIDE.get(torch.device(device).type, MATRIX_SIDE["cpu"])
        matrix = torch.randn(side, side, device=device).to(getattr(torch, key["ceiling"]))
        work, step = 2 * side**3, lambda: matrix @ matrix
    step()
    return {"per_second": work / min(run_times(step, torch.device(device), *LIMITS))}


SECTIONS = {
    measure.__name__: measure for measure in (inference, training, deformable, accuracy, shares, flops, ceilings)
}


def failure(message: str) -> dict[str, str]:
    """Classify a failed measurement by its error message."""
    if any(words in message.lower() for words in OUT_OF_MEMORY_MESSAGES):
        return {"status": "does not fit"}
    return {"status": "failed", "detail": message.strip().splitlines()[-1] if message.strip() else "no message"}


def run_job(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure every key of a job; prints and returns the measurements."""
    measurements = []
    for key in job["keys"]:
        try:
            result = {"status": "ok", "values": SECTIONS[job["section"]](key, job["device"])}
        except Exception as error:
            result = failure(f"{type(error).__name__}: {error}")
        measurements.append({"key": key, **result})
        print(json.dumps(measurements[-1]), flush=True)
    return measurements


def main():
    """Limit this process's memory and run the job given as JSON."""
    job = json.loads(sys.argv[1])
    if job["memory_limit"] is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (job["memory_limit"], job["memory_limit"]))
    transformers.logging.set_verbosity_error()
    run_job(job)


if __name__ == "__main__":
    main()
