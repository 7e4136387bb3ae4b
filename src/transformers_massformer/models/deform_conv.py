# Copyright 2026 The transformers-massformer authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Modulated deformable convolution (Deformable ConvNets v2, arXiv:1811.11168), with several engines"""

import functools
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from torchvision.ops import deform_conv2d
from transformers.utils import logging
from transformers.utils.import_utils import is_tracing

from .deform_conv_triton import is_triton_available, launch_probe, triton_deform_conv2d


logger = logging.get_logger(__name__)

# Environment variable that sets the engine of all layers and takes precedence over their configuration. It lets
# commands and remote code choose an engine without changing a model's files.
ENGINE_VARIABLE = "MASSFORMER_DEFORM_CONV_ENGINE"
# Taps of a band of rows whose sampling is planned at once, and bytes sampled at once. Few enough for caches and for
# the allocator to reuse memory: larger blocks are mapped again every time, which takes longer than filling them.
BAND_TAPS = 500_000
SAMPLED_BYTES = 2**22
# Sampled values of a training batch, 128 MiB in float32, up to which they are kept for the backward pass.
KEPT_VALUES = 2**25


def rows_read(offsets: torch.Tensor, first_row: int, height: int) -> tuple[int, int]:
    """
    Find the rows of a map that a band of output rows needs: those that its taps read, and its own.

    Args:
        offsets (`torch.Tensor` of shape `(batch_size, 2 * k * k, rows, width)`): The band's offsets, in pixels.
        first_row (`int`): The map's row on which the band's first row lies.
        height (`int`): Height of the map.

    Returns:
        `tuple(int)`: The first row and the row after the last.
    """
    reach = round((offsets.shape[1] / 2) ** 0.5) // 2 + 1
    up, down = offsets[:, 0::2].float().nan_to_num(nan=0.0).clamp(-height, height).aminmax()
    first = first_row - reach + min(0, int(up.floor()))
    last = first_row + offsets.shape[2] + reach + max(0, int(down.ceil()))
    return max(0, first), min(height, last)


def sampling_plan(
    offsets: torch.Tensor, modulation: torch.Tensor, first_row: int, height: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Compute the positions that the taps of a band of rows read in every channel: four neighbors per tap, with weights.

    Args:
        offsets (`torch.Tensor` of shape `(2 * k * k, rows, width)`): In pixels, see [`ModulatedDeformConv2d`].
        modulation (`torch.Tensor` of shape `(k * k, rows, width)`): Factor of each tap.
        first_row (`int`): The map's row on which the band's first row lies.
        height (`int`): Height of the map.

    Returns:
        `tuple(torch.Tensor)`: indices and weights, both of shape `(rows * width * k * k, 4)`. The indices count the
        positions of a map with one row and column of zeros before its own and two behind, in row-major order; taps
        outside the map or at NaN read these zeros.
    """
    num_taps, rows, width = modulation.shape
    side, padded_width, device = round(num_taps**0.5), width + 3, offsets.device
    tap = torch.arange(num_taps, device=device)
    row = torch.arange(first_row, first_row + rows, device=device)
    column = torch.arange(width, device=device)
    # Taps last, so that each position's values are written next to each other.
    offsets, modulation = offsets.permute(1, 2, 0).contiguous(), modulation.permute(1, 2, 0).contiguous()
    y = offsets[..., 0::2] + (row[:, None, None] + (tap // side - side // 2))
    x = offsets[..., 1::2] + (column[:, None] + (tap % side - side // 2))
    y = y.nan_to_num(nan=-1.0).clamp(-1, height)
    x = x.nan_to_num(nan=-1.0).clamp(-1, width)
    top, left = y.detach().floor(), x.detach().floor()

    lower = (y - top) * modulation
    upper = modulation - lower
    right = x - left
    lower_right, upper_right = lower * right, upper * right
    weights = torch.stack((upper - upper_right, upper_right, lower - lower_right, lower_right), dim=-1)
    index_type = torch.int32 if (height + 3) * padded_width < 2**31 else torch.int64
    upper_left = (top.to(index_type) + 1) * padded_width + (left.to(index_type) + 1)
    neighbours = torch.tensor((0, 1, padded_width, padded_width + 1), dtype=index_type, device=device)
    return (upper_left[..., None] + neighbours).flatten(0, 2), weights.flatten(0, 2)


class WeightedNeighbours(torch.autograd.Function):
    """
    Weighted sums of four rows each of a (positions, channels) matrix. Forward is an embedding bag. Backward sums over
    the sorted indices, again as an embedding bag, in a third of the time of the operator's own gradient.
    """

    @staticmethod
    def forward(ctx: Any, positions: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(positions, indices, weights)
        return F.embedding_bag(indices, positions, mode="sum", per_sample_weights=weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, None, torch.Tensor | None]:
        positions, indices, weights = ctx.saved_tensors
        to_positions = to_weights = None
        if ctx.needs_input_grad[0]:
            index, order = indices.flatten().sort()
            starts = torch.searchsorted(index, torch.arange(len(positions)).to(index))
            to_positions = F.embedding_bag(
                order // 4, gradient, starts, mode="sum", per_sample_weights=weights.flatten()[order]
            )
        if ctx.needs_input_grad[2]:
            neighbours = positions.index_select(0, indices.flatten()).unflatten(0, indices.shape)
            # Autocast would round the product where the backward pass runs within it.
            with torch.autocast(gradient.device.type, enabled=False):
                to_weights = torch.bmm(neighbours, gradient[:, :, None])[:, :, 0]
        return to_positions, None, to_weights


def multiply(sampled: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Multiply (positions, taps * channels) by a (taps * channels, out_channels) kernel."""
    if torch.is_grad_enabled() or sampled.device.type != "cpu":
        return sampled @ kernel if bias is None else torch.addmm(bias, sampled, kernel)
    # As a convolution of a channels-last map: oneDNN's kernels are fast on every CPU, MKL's matrix product on some.
    maps, kernel = sampled[None, :, None].permute(0, 3, 1, 2), kernel.T[:, :, None, None]
    return F.conv2d(maps, kernel, bias).permute(0, 2, 3, 1).flatten(0, 2)


def convolve_band(
    positions: torch.Tensor,
    offsets: torch.Tensor,
    modulation: torch.Tensor,
    kernel: torch.Tensor,
    bias: torch.Tensor | None,
    first_row: int,
    height: int,
) -> torch.Tensor:
    """Sample (positions, channels) for one band of rows and multiply by a (taps * channels, out_channels) kernel."""
    indices, weights = sampling_plan(offsets, modulation, first_row, height)
    weights = weights.to(positions.dtype)
    num_taps, taps_times_channels = modulation.shape[0], kernel.shape[0]
    taps_at_once = max(1, SAMPLED_BYTES // (positions.element_size() * taps_times_channels)) * num_taps
    if torch.is_grad_enabled():
        # Each gathering has a gradient of the whole map's size.
        taps_at_once = indices.shape[0]
    outputs = []
    for some_indices, some_weights in zip(indices.split(taps_at_once), weights.split(taps_at_once), strict=True):
        sampled = WeightedNeighbours.apply(positions, some_indices, some_weights)
        outputs.append(multiply(sampled.view(-1, taps_times_channels), kernel, bias))
    return torch.cat(outputs)


def banded_deform_conv2d(
    hidden_states: torch.Tensor,
    offsets: torch.Tensor,
    modulation: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    first_row: int = 0,
) -> torch.Tensor:
    """
    Compute a deformable convolution in bands of rows, sampled one at a time: four neighbors per tap, found once for
    all channels, are gathered from a channels-last map and multiplied by the kernel. In training, the bands of large
    batches are recomputed instead of kept.

    See [`ModulatedDeformConv2d`] for the arguments. bfloat16 is sampled and multiplied as such where no gradients are
    asked for, and the positions are always computed in float32 or better.
    """
    batch_size, in_channels, height, width = hidden_states.shape
    rows, (out_channels, _, side, _) = offsets.shape[2], weight.shape
    position_dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    dtype = position_dtype
    if hidden_states.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        dtype = torch.bfloat16

    kernel = weight.permute(2, 3, 1, 0).reshape(-1, out_channels).to(dtype)
    if not torch.is_grad_enabled():
        # In memory as convolutions read it, which is done once for all bands.
        kernel = kernel.T.contiguous().T
    bias = None if bias is None else bias.to(dtype)
    rows_per_band = max(1, BAND_TAPS // max(1, width * side * side))
    recompute = torch.is_grad_enabled() and modulation.numel() * in_channels > KEPT_VALUES
    bands = []
    for image, image_offsets, image_modulation in zip(hidden_states, offsets, modulation, strict=True):
        positions = F.pad(image.permute(1, 2, 0).to(dtype), (0, 0, 1, 2, 1, 2)).flatten(0, 1).contiguous()
        for first in range(0, rows, rows_per_band):
            some_rows = slice(first, first + rows_per_band)
            band_offsets = image_offsets[:, some_rows].to(position_dtype)
            band_modulation = image_modulation[:, some_rows].to(position_dtype)
            band = (positions, band_offsets, band_modulation, kernel, bias, first_row + first, height)
            if recompute:
                bands.append(checkpoint(convolve_band, *band, use_reentrant=False, preserve_rng_state=False))
            else:
                bands.append(convolve_band(*band))
    output = bands[0] if len(bands) == 1 else torch.cat(bands)
    output = output.view(batch_size, rows, width, out_channels).permute(0, 3, 1, 2)
    return output.to(hidden_states.dtype)


def finite_offsets(offsets: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
    """Move offsets at infinity or NaN, which operators would use as memory addresses, outside the map."""
    far = 2 * (hidden_states.shape[2] + hidden_states.shape[3])
    return offsets.clamp(-far, far).masked_fill(offsets.isnan(), far)


def torchvision_deform_conv2d(
    hidden_states: torch.Tensor,
    offsets: torch.Tensor,
    modulation: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    first_row: int = 0,
) -> torch.Tensor:
    """
    Compute a deformable convolution with torchvision's operator, the reference and the engine of traced and exported
    graphs. It has no bfloat16 kernel on the CPU and would round positions in half precision, so it computes in float32
    or better.

    See [`ModulatedDeformConv2d`] for the arguments.
    """
    dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    offsets, modulation = finite_offsets(offsets.to(dtype), hidden_states), modulation.to(dtype)
    rows, (height, padding) = offsets.shape[2], (hidden_states.shape[2], weight.shape[2] // 2)
    if rows != height:
        # The operator returns as many rows as its input has.
        margins = (0, 0, first_row, height - rows - first_row)
        offsets, modulation = F.pad(offsets, margins), F.pad(modulation, margins)
    bias = None if bias is None else bias.to(dtype)
    output = deform_conv2d(
        hidden_states.to(dtype), offsets, weight.to(dtype), bias, padding=(padding, padding), mask=modulation
    )
    if rows != height:
        output = output[:, :, first_row : first_row + rows]
    return output.to(hidden_states.dtype)


def sampled_deform_conv2d(
    hidden_states: torch.Tensor,
    offsets: torch.Tensor,
    modulation: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    first_row: int = 0,
) -> torch.Tensor:
    """
    Compute a deformable convolution as a sum over the rows of the kernel, whose taps sample a grid: slower, but with
    operators that every device and format has. Computed in float32 or better to keep the positions exact.

    See [`ModulatedDeformConv2d`] for the arguments.
    """
    dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    (height, width), side, device = hidden_states.shape[2:], weight.shape[2], hidden_states.device
    values, offsets = hidden_states.to(dtype), finite_offsets(offsets.to(dtype), hidden_states)
    tap = torch.arange(side * side, device=device)[:, None, None]
    row = torch.arange(first_row, first_row + offsets.shape[2], device=device)[:, None]
    y = offsets[:, 0::2] + (row + (tap // side - side // 2))
    x = offsets[:, 1::2] + (torch.arange(width, device=device) + (tap % side - side // 2))
    # The grid counts from -1, the map's upper and left margin, to 1.
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    output = torch.zeros((), dtype=dtype, device=device) if bias is None else bias.to(dtype)[:, None, None]
    for index in range(side):
        taps = slice(index * side, (index + 1) * side)
        sampled = F.grid_sample(values, grid[:, taps].flatten(1, 2), align_corners=False).unflatten(2, (side, -1))
        sampled = (sampled * modulation[:, None, taps].to(dtype)).flatten(1, 2)
        output = output + F.conv2d(sampled, weight[:, :, index].flatten(1)[..., None, None].to(dtype))
    return output.to(hidden_states.dtype)


def fused_deform_conv2d(
    hidden_states: torch.Tensor,
    offsets: torch.Tensor,
    modulation: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    first_row: int = 0,
) -> torch.Tensor:
    """
    Compute a deformable convolution in one Triton kernel with positions in float32, see [`triton_deform_conv2d`].

    See [`ModulatedDeformConv2d`] for the arguments.
    """
    position_dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    offsets, modulation = offsets.to(position_dtype), modulation.to(position_dtype)
    output = triton_deform_conv2d(hidden_states, offsets, modulation, weight.to(hidden_states.dtype), first_row)
    return output if bias is None else output + bias.to(output.dtype)[:, None, None]


ENGINES = {
    "torchvision": torchvision_deform_conv2d,
    "grid_sample": sampled_deform_conv2d,
    "banded": banded_deform_conv2d,
    "triton": fused_deform_conv2d,
}


@functools.cache
def triton_works() -> bool:
    """
    Return whether Triton can compile and run a kernel, tried once: it needs a C compiler and a writable cache. Where
    it cannot, the reason is logged.
    """
    try:
        launch_probe()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Compilers and drivers raise errors of many kinds.
        logger.warning(
            f"Triton is installed but cannot run ({type(error).__name__}: {error}). Deformable convolutions use "
            "torchvision's operator, which is slower. Triton needs a C compiler, Python's headers and a writable "
            "TRITON_CACHE_DIR."
        )
        return False
    return True


def choose_engine(requested: str | None, hidden_states: torch.Tensor) -> str:
    """
    Choose the engine for an input: the requested one, or else the fastest on its device. A traced computation
    (compiled, exported) uses an engine that becomes one node of the graph.
    """
    tracing, device = is_tracing(hidden_states), hidden_states.device.type
    if requested is None and device == "cuda" and is_triton_available():
        # Exported programs must run without Triton.
        is_exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()
        requested = "torchvision" if is_exporting or not (tracing or triton_works()) else "triton"
    engine = requested or ("banded" if device == "cpu" else "torchvision")
    if engine == "banded" and tracing:
        engine = "torchvision"
    if not tracing:
        logger.info_once(f"Deformable convolutions on {device} in {hidden_states.dtype} use the {engine} engine.")
    return engine


class ModulatedDeformConv2d(nn.Module):
    """
    Modulated deformable convolution: k x k, stride 1, "same" zero padding, with taps moved by `offsets` and scaled by
    `modulation` at every position (release: one deformable group, no bias). Taps at NaN read nothing.

    Args:
        in_channels (`int`): Channels of the input.
        out_channels (`int`): Channels of the output.
        kernel_size (`int`): Side k of the kernel, odd.
        engine (`str`, *optional*):
            Implementation: `"torchvision"`, `"grid_sample"`, `"banded"` or `"triton"`. Defaults to bands on the CPU,
            Triton on CUDA if it is installed, and torchvision elsewhere and in exported programs. The environment
            variable `MASSFORMER_DEFORM_CONV_ENGINE`, read when the layer is created, takes precedence.

    Raises:
        ValueError: If the engine is unknown.
    """

    # Set when a normalization is folded into the layer.
    bias: nn.Parameter | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, engine: str | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.register_parameter("bias", None)
        self.engine = os.environ.get(ENGINE_VARIABLE) or engine
        if self.engine is not None and self.engine not in ENGINES:
            raise ValueError(
                f"Unknown engine {self.engine!r} for deformable convolutions. Choose one of {list(ENGINES)} in "
                f"`deform_conv_engine` or the environment variable {ENGINE_VARIABLE}, or leave both unset."
            )

    def forward(
        self, hidden_states: torch.Tensor, offsets: torch.Tensor, modulation: torch.Tensor, first_row: int = 0
    ) -> torch.Tensor:
        """
        Compute all rows of the output, or those that the offsets are given for.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, in_channels, height, width)`): The input.
            offsets (`torch.Tensor` of shape `(batch_size, 2 * k * k, rows, width)`):
                Offsets in pixels; channels `2 t` and `2 t + 1` move tap `t` (row-major) down and to the right.
            modulation (`torch.Tensor` of shape `(batch_size, k * k, rows, width)`): Factor of each tap.
            first_row (`int`, *optional*, defaults to 0):
                Row of the input that the first output row belongs to, if only some rows are computed.

        Returns:
            `torch.Tensor` of shape `(batch_size, out_channels, rows, width)`, in the type of `hidden_states`.
        """
        engine = choose_engine(self.engine, hidden_states)
        if not is_tracing(hidden_states) and 0 in (hidden_states.numel(), offsets.numel()):
            return self.output_without_input(hidden_states, offsets)
        with torch.autocast(device_type=hidden_states.device.type, enabled=False):
            return ENGINES[engine](hidden_states, offsets, modulation, self.weight, self.bias, first_row)

    def output_without_input(self, hidden_states: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        shape = (offsets.shape[0], self.weight.shape[0], *offsets.shape[2:])
        output = hidden_states.new_zeros(shape) + hidden_states.sum() + offsets.sum().to(hidden_states.dtype)
        return output if self.bias is None else output + self.bias[:, None, None]

    def extra_repr(self) -> str:
        out_channels, in_channels, kernel_size, _ = self.weight.shape
        return f"{in_channels}, {out_channels}, kernel_size={kernel_size}"


__all__ = ["ModulatedDeformConv2d"]
