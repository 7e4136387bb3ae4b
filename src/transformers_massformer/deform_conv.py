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
"""Modulated deformable convolution (Deformable ConvNets v2, arXiv:1811.11168)"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import deform_conv2d


# Sampled values (rows * columns * taps * channels) that a band of rows may hold at once.
BAND_VALUES = 16_000_000


def sampling_plan(
    offsets: torch.Tensor, modulation: torch.Tensor, first_row: int, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Where the taps of a band of rows read, for all channels alike: four neighbours per tap, and what each counts.

    Args:
        offsets (`torch.Tensor` of shape `(2 * k * k, rows, width)`): In pixels, see [`ModulatedDeformConv2d`].
        modulation (`torch.Tensor` of shape `(k * k, rows, width)`): Factor of each tap.
        first_row (`int`): The band's first row.
        height (`int`): Height of the whole map.
        width (`int`): Width of the map.

    Returns:
        `tuple(torch.Tensor)`: indices into the map's positions in row-major order (int32) and weights, both of shape
        `(rows * width * k * k, 4)`. Neighbours outside the map have weight 0; taps at NaN are outside.
    """
    num_taps, rows, _ = modulation.shape
    side = round(num_taps**0.5)
    tap = torch.arange(num_taps, device=offsets.device)
    row = torch.arange(first_row, first_row + rows, device=offsets.device)
    column = torch.arange(width, device=offsets.device)
    # One row per position, one column per tap.
    y = (offsets[0::2] + (tap // side - side // 2)[:, None, None] + row[:, None]).flatten(1).T
    x = (offsets[1::2] + (tap % side - side // 2)[:, None, None] + column).flatten(1).T
    y = y.nan_to_num(nan=-1.0).clamp(-1, height)
    x = x.nan_to_num(nan=-1.0).clamp(-1, width)
    top, left = y.detach().floor(), x.detach().floor()
    below, right = y - top, x - left
    top, left = top.int(), left.int()
    modulation = modulation.flatten(1).T

    row_weights = (
        (1 - below) * modulation * ((top >= 0) & (top < height)),
        below * modulation * (top < height - 1),
    )
    column_weights = ((1 - right) * ((left >= 0) & (left < width)), right * (left < width - 1))
    rows_read = (top.clamp(0, height - 1) * width, (top + 1).clamp(0, height - 1) * width)
    columns_read = (left.clamp(0, width - 1), (left + 1).clamp(0, width - 1))
    indices = torch.stack([r + c for r in rows_read for c in columns_read], dim=2)
    weights = torch.stack([r * c for r in row_weights for c in column_weights], dim=2)
    return indices.flatten(0, 1), weights.flatten(0, 1)


def convolve_band(
    positions: torch.Tensor,
    offsets: torch.Tensor,
    modulation: torch.Tensor,
    kernel: torch.Tensor,
    first_row: int,
    height: int,
    width: int,
) -> torch.Tensor:
    """One band of rows: (positions, channels) sampled by the plan, times a (taps * channels, out_channels) kernel."""
    indices, weights = sampling_plan(offsets, modulation, first_row, height, width)
    sampled = F.embedding_bag(indices, positions, mode="sum", per_sample_weights=weights)
    return sampled.view(-1, kernel.shape[0]) @ kernel


def banded_deform_conv2d(
    hidden_states: torch.Tensor, offsets: torch.Tensor, modulation: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """
    The same as `torchvision.ops.deform_conv2d` with stride 1 and "same" padding, in bands of rows: an output row needs
    its own offsets only, so nothing is computed twice and the samples of all rows never exist at once. For training, a
    band is computed again instead of kept.
    """
    batch_size, in_channels, height, width = hidden_states.shape
    out_channels, num_taps = weight.shape[0], weight.shape[2] * weight.shape[3]
    kernel = weight.permute(2, 3, 1, 0).reshape(num_taps * in_channels, out_channels)
    rows_per_band = max(1, BAND_VALUES // max(1, width * num_taps * in_channels))
    bands = []
    for image, image_offsets, image_modulation in zip(hidden_states, offsets, modulation, strict=True):
        positions = image.permute(1, 2, 0).contiguous().view(height * width, in_channels)
        for first_row in range(0, height, rows_per_band):
            rows = slice(first_row, first_row + rows_per_band)
            band = (positions, image_offsets[:, rows], image_modulation[:, rows], kernel, first_row, height, width)
            if torch.is_grad_enabled():
                bands.append(checkpoint(convolve_band, *band, use_reentrant=False, preserve_rng_state=False))
            else:
                bands.append(convolve_band(*band))
    return torch.cat(bands).view(batch_size, height, width, out_channels).permute(0, 3, 1, 2)


class ModulatedDeformConv2d(nn.Module):
    """
    A bias-free k x k convolution of stride 1 and "same" zero padding, whose taps are moved by `offsets` and scaled by
    `modulation`, both given per position (release: one deformable group).

    On the CPU it is computed in bands of rows, several times faster than with torchvision's operator, whose kernel
    there has one thread and holds the samples of all rows at once. Elsewhere, and when the model is compiled or
    exported, it is torchvision's operator.

    Args:
        in_channels (`int`): Channels of the input.
        out_channels (`int`): Channels of the output.
        kernel_size (`int`): Side k of the kernel, odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.padding = (kernel_size // 2, kernel_size // 2)

    def forward(self, hidden_states: torch.Tensor, offsets: torch.Tensor, modulation: torch.Tensor) -> torch.Tensor:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, in_channels, height, width)`): The input.
            offsets (`torch.Tensor` of shape `(batch_size, 2 * k * k, height, width)`):
                In pixels; channels `2 t` and `2 t + 1` move tap `t` (row-major) down and to the right.
            modulation (`torch.Tensor` of shape `(batch_size, k * k, height, width)`): Factor of each tap.

        Returns:
            `torch.Tensor` of shape `(batch_size, out_channels, height, width)`, in the type of `hidden_states`.
        """
        # torchvision has no bfloat16 kernel on the CPU, and half precision would round the sampling positions.
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        inputs = [x.to(dtype) for x in (hidden_states, offsets, modulation, self.weight)]
        with torch.autocast(device_type=hidden_states.device.type, enabled=False):
            if hidden_states.device.type == "cpu" and not torch.compiler.is_compiling():
                output = banded_deform_conv2d(*inputs)
            else:
                output = deform_conv2d(inputs[0], inputs[1], inputs[3], padding=self.padding, mask=inputs[2])
        return output.to(hidden_states.dtype)

    def extra_repr(self) -> str:
        out_channels, in_channels, kernel_size, _ = self.weight.shape
        return f"{in_channels}, {out_channels}, kernel_size={kernel_size}"


__all__ = ["ModulatedDeformConv2d"]
