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
"""Folding batch normalisation into the convolutions before it, for inference"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .deform_conv import ModulatedDeformConv2d


CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, ModulatedDeformConv2d)


@dataclass
class Successions:
    """
    Layers that directly follow one another in a forward pass: one receives the very tensor that the other returned.

    Attributes:
        folds (`dict[nn.BatchNorm2d, nn.Module]`): Normalizations, and the convolution whose output they receive.
        activations (`dict[nn.ReLU, bool]`): Activations, and whether they only receive outputs of such layers.
    """

    folds: dict[nn.BatchNorm2d, nn.Module] = field(default_factory=dict)
    activations: dict[nn.ReLU, bool] = field(default_factory=dict)
    # Tensors are kept until the pass is over, so that their identities stay unique.
    producers: dict[int, tuple[torch.Tensor, int, nn.Module]] = field(default_factory=dict)
    calls: Counter[nn.Module] = field(default_factory=Counter)

    def record(self, module: nn.Module, args: tuple, output: torch.Tensor):
        """Record a call; the forward hook of all layers of interest."""
        self.calls[module] += 1
        _, version, producer = self.producers.get(id(args[0]), (None, None, None))
        if isinstance(module, nn.ReLU):
            self.activations[module] = self.activations.get(module, True) and producer is not None
            return
        # After an addition in place, the tensor is no longer the convolution's output.
        if isinstance(module, nn.BatchNorm2d) and isinstance(producer, CONVOLUTIONS) and args[0]._version == version:
            self.folds[module] = producer
        self.producers[id(output)] = (output, output._version, module)

    def finish(self):
        """Release the tensors, and drop folds of layers called more than once, whose predecessors may differ."""
        self.producers.clear()
        self.folds = {n: c for n, c in self.folds.items() if self.calls[n] == self.calls[c] == 1}


@torch.inference_mode(False)
@torch.no_grad()
def observe(model: nn.Module, example: torch.Tensor) -> Successions:
    """Run the model once and record which layers follow which."""
    successions = Successions()
    kinds = (*CONVOLUTIONS, nn.BatchNorm2d, nn.ReLU)
    hooks = [x.register_forward_hook(successions.record) for x in model.modules() if isinstance(x, kinds)]
    try:
        model(example)
    finally:
        for hook in hooks:
            hook.remove()
    successions.finish()
    return successions


@torch.no_grad()
def fold(convolution: Any, normalization: nn.BatchNorm2d):
    """Fold the normalization into the convolution's weight and bias, computed in float32 or better."""
    dtype = convolution.weight.dtype
    precision = torch.promote_types(dtype, torch.float32)
    parameters: list[Any] = [
        *(convolution.weight, convolution.bias, normalization.running_mean, normalization.running_var),
        *(normalization.eps, normalization.weight, normalization.bias),
    ]
    parameters = [x.to(precision) if isinstance(x, torch.Tensor) else x for x in parameters]
    weight, bias = fuse_conv_bn_weights(*parameters, transpose=isinstance(convolution, nn.ConvTranspose2d))
    convolution.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(dtype), requires_grad=False)


def fold_batch_norms(model: nn.Module, example: torch.Tensor) -> int:
    """
    Fold batch normalizations into the convolutions whose output they receive, and run activations in place where
    nothing else reads their input. The model is changed in place, for inference only: outputs stay the same up to
    rounding, parameters do not.

    Args:
        model (`nn.Module`): Model in eval mode.
        example (`torch.Tensor`): Input of the pass that records which layers follow which.

    Returns:
        `int`: The number of folded normalizations.
    """
    successions = observe(model, example)
    names = {module: name for name, module in model.named_modules()}
    folded = 0
    for normalization, convolution in successions.folds.items():
        is_grouped_transpose = isinstance(convolution, nn.ConvTranspose2d) and convolution.groups > 1
        if normalization.running_mean is None or is_grouped_transpose:
            continue
        fold(convolution, normalization)
        # timm's normalizations include their activation.
        rest = getattr(normalization, "act", None) or nn.Identity()
        parent, _, name = names[normalization].rpartition(".")
        setattr(model.get_submodule(parent), name, rest.eval())
        folded += 1
    for activation, only_reader in successions.activations.items():
        activation.inplace = activation.inplace or only_reader
    return folded


__all__ = ["fold_batch_norms"]
