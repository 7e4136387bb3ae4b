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
"""PyTorch SeMask models (Semantically Masked Transformers for Semantic Segmentation, arXiv:2112.12782)"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoBackbone
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states, load_backbone
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.swin.modeling_swin import (
    SwinEmbeddings,
    SwinLayer,
    SwinMLP,
    SwinPatchMerging,
    SwinPreTrainedModel,
    SwinRelativePositionBias,
    eager_attention_forward,
    window_partition,
    window_reverse,
)
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .arguments import refuse_unknown_inputs
from .batch_norm_statistics import fix_statistics_under_adapters
from .configuration_semask_swin import SeMaskConfig, SeMaskSwinConfig
from .semantic_prior import double_and_fit, pixel_cross_entropy, sum_semantic_maps


# Checkpoints of Swin are read and written with older names.
register_checkpoint_conversion_mapping(
    SeMaskSwinConfig.model_type, get_checkpoint_conversion_mapping("swin") or [], overwrite=True
)


@auto_docstring(custom_intro="Output of [`SeMaskSwinModel`].")
@dataclass
class SeMaskSwinModelOutput(ModelOutput):
    r"""
    last_hidden_state (`torch.Tensor` of shape `(batch_size, height / 32 * width / 32, hidden_size)`):
        The tokens after the last semantic layer, not normalized.
    reshaped_hidden_states (`tuple(torch.Tensor)`):
        The patch embeddings, and the tokens after the semantic layer of each stage, as maps of shape
        `(batch_size, num_channels, height / s, width / s)`.
    semantic_maps (`tuple(torch.Tensor)`):
        The maps of the stages, of shape `(batch_size, num_semantic_labels, height / s, width / s)`, s = 4, 8, 16, 32.
    hidden_states (`tuple(torch.Tensor)`, *optional*, returned when `output_hidden_states=True` is passed):
        The patch embeddings, and the tokens after the semantic layer of each stage, of shape
        `(batch_size, height / s * width / s, num_channels)`.
    attentions (`tuple(torch.Tensor)`, *optional*, returned when `output_attentions=True` is passed):
        Attention weights of each Swin block, of shape `(batch_size * num_windows, num_heads, length, length)`.
    """

    last_hidden_state: torch.Tensor | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None
    semantic_maps: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@auto_docstring(custom_intro="Output of [`SeMaskSwinBackbone`].")
@dataclass
class SeMaskSwinBackboneOutput(BackboneOutput):
    r"""
    feature_maps (`tuple(torch.Tensor)`):
        Normalized maps of the stages in `out_features`, of shape `(batch_size, num_channels, height / s, width / s)`.
    hidden_states (`tuple(torch.Tensor)`, *optional*, returned when `output_hidden_states=True` is passed):
        The patch embeddings and the maps of all stages, not normalized.
    attentions (`tuple(torch.Tensor)`, *optional*, returned when `output_attentions=True` is passed):
        Attention weights of each Swin block.
    semantic_maps (`tuple(torch.Tensor)`):
        The map of every stage, of shape `(batch_size, num_semantic_labels, height / s, width / s)`.
    """

    semantic_maps: tuple[torch.Tensor, ...] | None = None


@auto_docstring(custom_intro="Output of [`SeMaskForSemanticSegmentation`].")
@dataclass
class SeMaskForSemanticSegmentationOutput(ModelOutput):
    r"""
    loss (`torch.Tensor`, *optional*, returned when `labels` are given):
        The cross-entropy of the logits plus `semantic_loss_weight` times that of the semantic logits (Eq. 5), a
        scalar.
    logits (`torch.Tensor` of shape `(batch_size, num_labels, height / 4, width / 4)`):
        Logits of each class; quotients are rounded up.
    semantic_logits (`torch.Tensor` of shape `(batch_size, num_semantic_labels, height / 4, width / 4)`, *optional*):
        The sum of the semantic maps, for the loss. `None` if the backbone has no semantic layers.
    semantic_maps (`tuple(torch.Tensor)`, *optional*):
        The backbone's semantic maps, of shape `(batch_size, num_semantic_labels, height / s, width / s)`.
    hidden_states (`tuple(torch.Tensor)`, *optional*, returned when `output_hidden_states=True` is passed):
        The hidden states of the backbone.
    attentions (`tuple(torch.Tensor)`, *optional*, returned when `output_attentions=True` is passed):
        The attention weights of the backbone.
    loss_dict (`dict[str, torch.Tensor]`, *optional*, returned when `labels` are given):
        The weighted terms of `loss`, as scalars without gradients: `loss_cross_entropy` and `loss_semantic`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    semantic_logits: torch.Tensor | None = None
    semantic_maps: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    loss_dict: dict[str, torch.Tensor] | None = None


def to_map(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Reshape (B, H * W, C) to (B, C, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))


class SeMaskSwinMLP(SwinMLP):
    """Swin's MLP with stochastic depth, which transformers' Swin applies to the attention only."""

    def __init__(self, config: SeMaskSwinConfig, dim: int, drop_path: nn.Module):
        super().__init__(config, dim)
        self.drop_path = drop_path

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.drop_path(super().forward(hidden_states))


class SeMaskSwinLayer(SwinLayer):
    """Swin block of the release: window and shift sizes independent of the map, stochastic depth on both branches."""

    def __init__(self, config: SeMaskSwinConfig, stage: int, block: int, drop_path_rate: float):
        dim, shift_size = config.embed_dim * 2**stage, config.window_size // 2 if block % 2 else 0
        # The resolution is an attribute that the parent class never reads.
        super().__init__(config, dim, (0, 0), config.num_heads[stage], drop_path_rate, shift_size)
        self.mlp = SeMaskSwinMLP(config, dim, self.drop_path)


class SeMaskSwinSemanticAttention(nn.Module):
    """
    SeMask attention (section 3.2, Eq. 1 and 2): queries and keys have one channel per class, and the queries are the
    semantic map. A learned scalar weights the output.
    """

    def __init__(self, config: SeMaskSwinConfig, dim: int):
        super().__init__()
        self.config = config
        self.is_causal = False
        self.q_proj = nn.Linear(dim, config.num_semantic_labels)
        self.k_proj = nn.Linear(dim, config.num_semantic_labels)
        self.v_proj = nn.Linear(dim, dim)
        self.o_proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(config.semantic_dropout_prob)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(
        self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        semantic_queries = self.q_proj(hidden_states)
        queries, keys, values = semantic_queries, self.k_proj(hidden_states), self.v_proj(hidden_states)
        # Zeros change no score, and memory-efficient kernels need equal widths.
        width = max(queries.shape[-1], values.shape[-1])
        queries, keys, values = (F.pad(x, (0, width - x.shape[-1]))[:, None] for x in (queries, keys, values))

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, _ = attention_interface(self, queries, keys, values, None, scaling=1.0, dropout=0.0, **kwargs)
        attended = self.o_proj(attended[:, :, 0, : hidden_states.shape[-1]])
        return semantic_queries, hidden_states + self.gamma * self.dropout(attended)


class SeMaskSwinSemanticLayer(GradientCheckpointingLayer):
    """
    Normalization of the tokens followed by SeMask attention, in windows or over the complete map. The residual
    connection starts from the normalized tokens (release).
    """

    def __init__(self, config: SeMaskSwinConfig, dim: int, depth: int, is_global: bool):
        super().__init__()
        self.is_global = is_global
        self.window_size = config.semantic_window_size or config.window_size
        self.layernorm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.blocks = nn.ModuleList(SeMaskSwinSemanticAttention(config, dim) for _ in range(depth))

    def to_windows(self, tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Split tokens into windows, padded with zeros that take part in the attention (release)."""
        size = self.window_size
        feature_map = tokens.unflatten(1, (height, width))
        feature_map = F.pad(feature_map, (0, 0, 0, -width % size, 0, -height % size))
        return window_partition(feature_map, size).flatten(1, 2)

    def from_windows(self, windows: torch.Tensor, height: int, width: int) -> torch.Tensor:
        size = self.window_size
        feature_map = window_reverse(
            windows.unflatten(1, (size, size)), size, height + -height % size, width + -width % size
        )
        return feature_map[:, :height, :width].flatten(1, 2)

    def forward(
        self, hidden_states: torch.Tensor, input_dimensions: tuple[int, int], **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden_states = self.layernorm(hidden_states)
        if not self.is_global:
            hidden_states = self.to_windows(hidden_states, *input_dimensions)
        for block in self.blocks:
            semantic_queries, hidden_states = block(hidden_states, **kwargs)
        if not self.is_global:
            semantic_queries = self.from_windows(semantic_queries, *input_dimensions)
            hidden_states = self.from_windows(hidden_states, *input_dimensions)
        return hidden_states, semantic_queries


class SeMaskSwinStage(nn.Module):
    """Swin blocks, a semantic layer, and patch merging in all stages but the last."""

    def __init__(self, config: SeMaskSwinConfig, index: int, drop_path_rates: list[float]):
        super().__init__()
        dim = config.embed_dim * 2**index
        self.blocks = nn.ModuleList(
            SeMaskSwinLayer(config, index, block, rate) for block, rate in enumerate(drop_path_rates)
        )
        self.semantic_layer = SeMaskSwinSemanticLayer(
            config, dim, config.semantic_depths[index], config.semantic_attention[index] == "global"
        )
        is_last = index == len(config.depths) - 1
        self.downsample = None if is_last else SwinPatchMerging(dim)

    def forward(
        self, hidden_states: torch.Tensor, input_dimensions: tuple[int, int], **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for block in self.blocks:
            hidden_states, _ = block(hidden_states, input_dimensions, always_partition=True, **kwargs)
        return self.semantic_layer(hidden_states, input_dimensions, **kwargs)


class SeMaskSwinEncoder(nn.Module):
    """Encoder of all stages. Each stage receives the tokens of the previous one without normalization (release)."""

    layers: Any

    def __init__(self, config: SeMaskSwinConfig):
        super().__init__()
        rates = torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist()
        rates_of_stages = [rates[sum(config.depths[:index]) :][:depth] for index, depth in enumerate(config.depths)]
        self.layers = nn.ModuleList(SeMaskSwinStage(config, index, r) for index, r in enumerate(rates_of_stages))

    def forward(
        self, hidden_states: torch.Tensor, input_dimensions: tuple[int, int], **kwargs: Unpack[TransformersKwargs]
    ) -> SeMaskSwinModelOutput:
        height, width = input_dimensions
        feature_maps, semantic_maps = [to_map(hidden_states, height, width)], []
        for stage in self.layers:
            hidden_states, semantic_queries = stage(hidden_states, (height, width), **kwargs)
            feature_maps.append(to_map(hidden_states, height, width))
            semantic_maps.append(to_map(semantic_queries, height, width))
            if stage.downsample is not None:
                hidden_states = stage.downsample(hidden_states, (height, width))
                height, width = (height + 1) // 2, (width + 1) // 2
        return SeMaskSwinModelOutput(
            last_hidden_state=hidden_states,
            reshaped_hidden_states=tuple(feature_maps),
            semantic_maps=tuple(semantic_maps),
        )


@auto_docstring
class SeMaskSwinPreTrainedModel(SwinPreTrainedModel):
    config: SeMaskSwinConfig  # ty: ignore[incompatible-mutable-override]
    base_model_prefix = "swin"
    _no_split_modules = ["SeMaskSwinStage"]
    # Swin's last normalization, its classifier and its reconstruction belong to other tasks.
    _keys_to_ignore_on_load_unexpected = [
        *(SwinPreTrainedModel._keys_to_ignore_on_load_unexpected or ()),
        r"^(swin\.)?layernorm\.",
        r"^classifier\.",
        r"^decoder\.",
    ]
    _can_record_outputs = {
        "hidden_states": SeMaskSwinStage,
        "attentions": OutputRecorder(SeMaskSwinLayer, index=1),
    }

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False):
        # The library assumes that custom code overwrites loaded weights and skips modules whose weights were loaded,
        # with their buffers. This code leaves loaded weights unchanged.
        super()._initialize_weights(module, is_custom_code=False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """
        Initialize like the release. If the output of the semantic attention were zero like its scalar, neither would
        ever learn.
        """
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, SwinRelativePositionBias):
            init.trunc_normal_(module.relative_position_bias_table, std=self.config.initializer_range)
        elif isinstance(module, SeMaskSwinSemanticAttention):
            init.zeros_(module.gamma)


@auto_docstring(custom_intro="Swin with a semantic layer after each stage, without the normalizations of a backbone.")
class SeMaskSwinModel(SeMaskSwinPreTrainedModel):
    def __init__(self, config: SeMaskSwinConfig):
        super().__init__(config)
        self.embeddings = SwinEmbeddings(config)
        self.encoder = SeMaskSwinEncoder(config)
        self.post_init()

    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> SeMaskSwinModelOutput:
        refuse_unknown_inputs(self, kwargs)
        embeddings, input_dimensions = self.embeddings(pixel_values, interpolate_pos_encoding=True)
        return self.encoder(embeddings, input_dimensions, **kwargs)


@auto_docstring(custom_intro="SeMask-Swin as a backbone: feature maps, and a semantic map of each stage.")
class SeMaskSwinBackbone(BackboneMixin, SeMaskSwinPreTrainedModel):
    def __init__(self, config: SeMaskSwinConfig):
        super().__init__(config)
        self.num_features = [config.embed_dim, *(config.embed_dim * 2**index for index in range(len(config.depths)))]
        self.swin = SeMaskSwinModel(config)
        self.hidden_states_norms = nn.ModuleDict(
            {
                stage: nn.LayerNorm(num_channels, eps=config.layer_norm_eps)
                for stage, num_channels in zip(self.out_features, self.channels, strict=True)
            }
        )
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    @auto_docstring
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> SeMaskSwinBackboneOutput:
        refuse_unknown_inputs(self, kwargs)
        kwargs.pop("output_hidden_states", None)
        outputs = self.swin(pixel_values, return_dict=True, **kwargs)
        maps = dict(zip(self.stage_names, outputs.reshaped_hidden_states, strict=True))
        feature_maps = [
            norm(maps[stage].movedim(1, -1)).movedim(-1, 1) for stage, norm in self.hidden_states_norms.items()
        ]
        return SeMaskSwinBackboneOutput(
            feature_maps=tuple(feature_maps),
            hidden_states=outputs.reshaped_hidden_states,
            attentions=outputs.attentions,
            semantic_maps=outputs.semantic_maps,
        )


class SeMaskConvLayer(nn.Module):
    """Convolution without bias, batch normalization, ReLU."""

    def __init__(self, config: SeMaskConfig, in_channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, config.hidden_size, kernel_size=3, padding=1, bias=False)
        self.normalization = nn.BatchNorm2d(
            config.hidden_size, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum
        )
        self.activation = nn.ReLU()

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.activation(self.normalization(self.convolution(feature_map)))


class SeMaskScaleBranch(nn.Module):
    """Branch from the map of one stage to stride 4: a convolution and a doubling for every factor of 2."""

    def __init__(self, config: SeMaskConfig, in_channels: int, stage: int):
        super().__init__()
        self.doubles = stage > 0
        self.layers = nn.ModuleList(
            SeMaskConvLayer(config, in_channels if index == 0 else config.hidden_size)
            for index in range(max(stage, 1))
        )

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            feature_map = layer(feature_map)
            if self.doubles:
                feature_map = F.interpolate(feature_map, scale_factor=2, mode="bilinear", align_corners=False)
        return feature_map


class SeMaskFPNHead(nn.Module):
    """Head of Semantic-FPN: the sum of all stages at stride 4, and a classifier."""

    def __init__(self, config: SeMaskConfig, feature_channels: list[int]):
        super().__init__()
        self.branches = nn.ModuleList(
            SeMaskScaleBranch(config, in_channels, stage) for stage, in_channels in enumerate(feature_channels)
        )
        self.dropout = nn.Dropout2d(config.hidden_dropout_prob)
        self.classifier = nn.Conv2d(config.hidden_size, len(config.id2label or ()), kernel_size=1)

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        size = feature_maps[0].shape[-2:]
        hidden_states = self.branches[0](feature_maps[0])
        for branch, feature_map in zip(self.branches[1:], feature_maps[1:], strict=True):
            hidden_states = hidden_states + double_and_fit(branch(feature_map), 0, size)
        return self.classifier(self.dropout(hidden_states))


@auto_docstring
class SeMaskPreTrainedModel(PreTrainedModel):
    config: SeMaskConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["SeMaskSwinStage"]
    _supports_sdpa = True
    # The loss is a mean over the batch, so `Trainer` must not pass the number of items.
    accepts_loss_kwargs = False

    # Overridden because modules have no hook for changes of mode, and every training loop and wrapper calls it.
    def train(self, mode: bool = True):
        """Set the mode like the base class; with adapters of peft, frozen batch normalizations stay in eval mode."""
        super().train(mode)
        fix_statistics_under_adapters(self)
        return self

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialize the head like the release."""
        super()._init_weights(module)
        if isinstance(module, SeMaskConvLayer):
            init.kaiming_normal_(module.convolution.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, SeMaskFPNHead):
            init.normal_(module.classifier.weight, std=0.01)


def load_semask_backbone(config: SeMaskConfig) -> nn.Module:
    """Build the encoder. SeMask-Swin is found by its type, since remote code has a class other than the registered."""
    backbone_config: Any = config.backbone_config
    # CODEPATH: all released checkpoints have SeMask-Swin; any other backbone makes a plain Semantic-FPN.
    if backbone_config.model_type == SeMaskSwinConfig.model_type:
        return SeMaskSwinBackbone(backbone_config)
    return load_backbone(config)


@auto_docstring(custom_intro="The encoder of SeMask, without a segmentation head.")
class SeMaskModel(SeMaskPreTrainedModel):
    _keys_to_ignore_on_load_unexpected = [r"^head\."]

    def __init__(self, config: SeMaskConfig):
        super().__init__(config)
        self.backbone: Any = load_semask_backbone(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the convolution that reads the image; not every backbone names its own."""
        return next(module for module in self.backbone.modules() if isinstance(module, nn.Conv2d))

    def encode(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> Any:
        """Run the backbone with the outputs that the arguments or else this model's configuration ask for."""
        refuse_unknown_inputs(self, kwargs)
        for name in ("output_hidden_states", "output_attentions"):
            kwargs.setdefault(name, getattr(self.config, name))
        return self.backbone.forward_with_filtered_kwargs(pixel_values, **kwargs)

    @can_return_tuple
    @auto_docstring
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> SeMaskSwinBackboneOutput:
        return self.encode(pixel_values, **kwargs)


@auto_docstring(custom_intro="SeMask-FPN: SeMask-Swin with a Semantic-FPN head, and semantic maps for training.")
class SeMaskForSemanticSegmentation(SeMaskModel):
    _keys_to_ignore_on_load_unexpected = None

    def __init__(self, config: SeMaskConfig):
        super().__init__(config)
        self.head = SeMaskFPNHead(config, self.backbone.channels)
        self.post_init()

    @can_return_tuple
    @auto_docstring
    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> SeMaskForSemanticSegmentationOutput:
        r"""
        labels (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*):
            Class of each pixel, `config.ignore_index` for pixels without one. If given, the loss is returned.
        """
        outputs = self.encode(pixel_values, **kwargs)
        logits = self.head(outputs.feature_maps)
        semantic_maps = getattr(outputs, "semantic_maps", None)
        semantic_logits = None if semantic_maps is None else sum_semantic_maps(semantic_maps)

        loss, loss_dict = None, None
        if labels is not None:
            config = self.config
            losses = {
                "loss_cross_entropy": pixel_cross_entropy(
                    logits, labels, config.ignore_index, config.hard_pixels_per_image
                )
            }
            if semantic_logits is not None:
                semantic_loss = pixel_cross_entropy(semantic_logits, labels, config.ignore_index)
                losses["loss_semantic"] = config.semantic_loss_weight * semantic_loss
            loss = torch.stack(list(losses.values())).sum()
            loss_dict = {name: value.detach() for name, value in losses.items()}

        return SeMaskForSemanticSegmentationOutput(
            loss=loss,
            logits=logits,
            semantic_logits=semantic_logits,
            semantic_maps=semantic_maps,
            hidden_states=outputs.hidden_states,
            attentions=getattr(outputs, "attentions", None),
            loss_dict=loss_dict,
        )


AutoBackbone.register(SeMaskSwinConfig, SeMaskSwinBackbone, exist_ok=True)

__all__ = [
    "SeMaskForSemanticSegmentation",
    "SeMaskModel",
    "SeMaskPreTrainedModel",
    "SeMaskSwinBackbone",
    "SeMaskSwinModel",
    "SeMaskSwinPreTrainedModel",
]
