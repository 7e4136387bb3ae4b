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
from torch import nn
from torchvision.ops import deform_conv2d


class ModulatedDeformConv2d(nn.Module):
    """
    A bias-free k x k convolution of stride 1 and "same" zero padding, whose taps are moved by `offsets` and scaled by
    `modulation`, both given per position (release: one deformable group).

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
        output = deform_conv2d(
            hidden_states.to(dtype),
            offsets.to(dtype),
            self.weight.to(dtype),
            padding=self.padding,
            mask=modulation.to(dtype),
        )
        return output.to(hidden_states.dtype)

    def extra_repr(self) -> str:
        out_channels, in_channels, kernel_size, _ = self.weight.shape
        return f"{in_channels}, {out_channels}, kernel_size={kernel_size}"


__all__ = ["ModulatedDeformConv2d"]
