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
"""Per-pixel baselines on MaSSFormer's pixel decoder (MaskFormer, section 4.1, arXiv:2107.06278)"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple

from .arguments import refuse_unknown_inputs
from .configuration_per_pixel_baseline import PerPixelBaselineConfig
from .loss_massformer import MaSSFormerLoss
from .modeling_massformer import (
    MaSSFormerModel,
    MaSSFormerPreTrainedModel,
    MaSSFormerTransformerDecoderOutput,
    all_rows,
    halve,
    mask_logits,
)
from .semantic_prior import pixel_cross_entropy, semantic_prior_loss


@auto_docstring(custom_intro="Output of [`PerPixelBaselineForSemanticSegmentation`].")
@dataclass
class PerPixelBaselineOutput(ModelOutput):
    r"""
    loss (`torch.Tensor`, *optional*, returned when `labels` are given):
        The sum of all weighted terms, a scalar.
    logits (`torch.Tensor` of shape `(batch_size, num_labels, height / 2, width / 2)`):
        Logits of each class.
    edge_logits (`torch.Tensor` of shape `(batch_size, 1, height / 2, width / 2)`):
        Logits of the edges between classes.
    semantic_maps (`tuple(torch.Tensor)`, *optional*, returned if the backbone has semantic layers):
        The semantic maps, of shapes `(batch_size, num_labels, height / s, width / s)` with s = 4, 8, 16, 32.
    hidden_states (`tuple(torch.Tensor)`, *optional*, returned when `output_hidden_states=True` is passed):
        The queries before the first layer of the transformer decoder, if the model has one, and after each layer.
    attentions (`tuple(torch.Tensor)`, *optional*, returned when `output_attentions=True` is passed):
        The cross-attention weights of the transformer decoder.
    loss_dict (`dict[str, torch.Tensor]`, *optional*, returned when `labels` are given):
        The weighted terms that add up to `loss`, as scalars without gradients: `loss_cross_entropy`, the same with
        suffix `_0`, `_1` ... for earlier decoder steps, `loss_edge`, and `loss_semantic` if the backbone has semantic
        layers.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    edge_logits: torch.Tensor | None = None
    semantic_maps: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    loss_dict: dict[str, torch.Tensor] | None = None


class PerPixelBaselineClassifier(nn.Module):
    """
    Replacement for the transformer decoder: one learned embedding per class for all images, so that mask logits are a
    1x1 convolution of the pixel decoder's features.
    """

    def __init__(self, config: PerPixelBaselineConfig):
        super().__init__()
        self.class_embeddings = nn.Embedding(len(config.id2label or ()), config.hidden_size)

    def level_features(self, coarse_features: torch.Tensor) -> list[torch.Tensor]:
        """Return no features, because there is no attention to mask."""
        return []

    def forward(
        self, memories: list[torch.Tensor], level_features: list[torch.Tensor], **kwargs: Unpack[TransformersKwargs]
    ) -> MaSSFormerTransformerDecoderOutput:
        # Repeated, not expanded: outputs must not share memory with the parameter.
        embeddings = all_rows(self.class_embeddings, memories[0].device).repeat(len(memories[0]), 1, 1)
        return MaSSFormerTransformerDecoderOutput(
            last_hidden_state=embeddings, intermediate_hidden_states=(embeddings,), mask_embeddings=(embeddings,)
        )


@auto_docstring(custom_intro="Pixel encoder and pixel decoder, and a classifier instead of queries.")
class PerPixelBaselineModel(MaSSFormerModel):
    config: PerPixelBaselineConfig  # ty: ignore[incompatible-mutable-override]

    def __init__(self, config: PerPixelBaselineConfig):
        super().__init__(config)
        # CODEPATH: PerPixelBaseline; with the transformer decoder it is PerPixelBaseline+.
        if not config.use_transformer_decoder:
            self.transformer_decoder = PerPixelBaselineClassifier(config)
            # Nothing reads the memories, so their projections would never get a gradient.
            self.pixel_decoder.memory_projections = nn.ModuleList(nn.Identity() for _ in range(3))
            self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, PerPixelBaselineClassifier):
            init.normal_(module.class_embeddings.weight, std=module.class_embeddings.embedding_dim**-0.5)


@auto_docstring(
    custom_intro="""
    MaSSFormer's pixel encoder and decoder with per-pixel classification: PerPixelBaseline, or PerPixelBaseline+ with
    the transformer decoder and a query for each class.
    """
)
class PerPixelBaselineForSemanticSegmentation(MaSSFormerPreTrainedModel):
    config: PerPixelBaselineConfig  # ty: ignore[incompatible-mutable-override]

    def __init__(self, config: PerPixelBaselineConfig):
        super().__init__(config)
        self.model: Any = PerPixelBaselineModel(config)
        self.bias = nn.Parameter(torch.zeros(len(config.id2label or ())))
        # For its check of labels and its edge loss.
        self.criterion = MaSSFormerLoss(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, PerPixelBaselineForSemanticSegmentation):
            init.zeros_(module.bias)

    def add_bias(self, logits: torch.Tensor) -> torch.Tensor:
        return logits + self.bias[:, None, None]

    def losses(self, outputs: Any, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the weighted terms of the loss."""
        config, losses = self.config, {}
        batch_size, _, height, width = outputs.mask_features.shape
        self.criterion.check_labels(labels, batch_size, 2 * height, 2 * width)
        final_step, coarse_features = len(outputs.mask_embeddings) - 1, halve(outputs.mask_features)
        for step, embeddings in enumerate(outputs.mask_embeddings):
            # CODEPATH: training choice; no checkpoint depends on it.
            if step < final_step and not config.use_auxiliary_loss:
                continue
            features = outputs.mask_features if step == final_step else coarse_features
            name = "loss_cross_entropy" if step == final_step else f"loss_cross_entropy_{step}"
            logits = self.add_bias(mask_logits(embeddings, features))
            losses[name] = pixel_cross_entropy(logits, labels.long(), config.ignore_index)
        edge_loss = self.criterion.edge_loss(outputs.edge_logits.float(), labels)
        losses["loss_edge"] = config.edge_weight * edge_loss
        if outputs.semantic_maps is not None:
            semantic_loss = semantic_prior_loss(outputs.semantic_maps, labels.long(), config.ignore_index)
            losses["loss_semantic"] = config.semantic_loss_weight * semantic_loss
        return losses

    @can_return_tuple
    @auto_docstring
    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> PerPixelBaselineOutput:
        r"""
        labels (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*):
            Class of each pixel, `config.ignore_index` for pixels without one. If given, the loss is returned.
        """
        refuse_unknown_inputs(self, kwargs)
        outputs = self.model(pixel_values, output_pixel_features=labels is not None, return_dict=True, **kwargs)
        loss, loss_dict, logits = None, None, outputs.masks_queries_logits
        if labels is not None:
            with torch.autocast(device_type=labels.device.type, enabled=False):
                losses = self.losses(outputs, labels)
            loss = torch.stack(list(losses.values())).sum()
            loss_dict = {name: value.detach() for name, value in losses.items()}
            logits = mask_logits(outputs.mask_embeddings[-1], outputs.mask_features)
        return PerPixelBaselineOutput(
            loss=loss,
            logits=self.add_bias(logits),
            edge_logits=outputs.edge_logits,
            semantic_maps=outputs.semantic_maps,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            loss_dict=loss_dict,
        )


__all__ = ["PerPixelBaselineForSemanticSegmentation", "PerPixelBaselineModel"]
