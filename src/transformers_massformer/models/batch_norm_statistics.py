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
"""Running statistics of batch normalizations under adapters"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_adapters(model: nn.Module) -> bool:
    """Tell whether layers of a model are wrapped by peft."""
    # By module name, because peft is not a dependency.
    return any(type(module).__module__.partition(".")[0] == "peft" for module in model.modules())


def fix_statistics_under_adapters(model: nn.Module):
    """
    Put the frozen batch normalizations of a model with adapters of peft in eval mode. An adapter holds no running
    statistics of the base model, so a reloaded one would otherwise give other outputs. Those that `modules_to_save`
    names are trained and saved with the adapter, and stay as they are.

    Args:
        model (`nn.Module`): A model whose mode has just been set.
    """
    if not has_adapters(model):
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()


__all__ = ["fix_statistics_under_adapters", "has_adapters"]
