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
"""PyTorch MaSSFormer model (MaSS13K, CVPR 2025, arXiv:2503.18364)"""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import load_backbone
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple
from transformers.utils.import_utils import is_tracing
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .arguments import refuse_unknown_inputs
from .batch_norm_folding import fold_batch_norms
from .batch_norm_statistics import fix_statistics_under_adapters, has_adapters
from .configuration_massformer import MaSSFormerConfig
from .deform_conv import ModulatedDeformConv2d, rows_read
from .loss_massformer import MaSSFormerLoss, semantic_targets
from .semantic_readout import semantic_scores


# Values in the widest map of a band of rows: few enough for the allocator to reuse the same memory, enough to keep the
# kernels busy.
BAND_VALUES = 2**22
# Bands in a stripe. A map in stripes is freed piece by piece, and stripes are large enough for the allocator to return
# them to the system.
STRIPE_BANDS = 4
# Rows beyond a band that a deformable convolution is given; it reads more where its offsets reach further.
READ_AHEAD = 16
# Added to scores before their logarithms, so that no pass can rule out a class by itself.
LEAST_SCORE = 1e-3
# Logit of a query's class where the class is certain.
CERTAIN = 20.0
# Share of piloted queries made from a random class, and of the positions that change sides of their masks, relative to
# the mask's area (MP-Former).
LABEL_NOISE = POINT_NOISE = 0.2


@dataclass
class MaSSFormerPilotedQueries:
    """
    Queries that read the memories within given masks (MP-Former), padded to one number per image.

    Attributes:
        hidden_states (`torch.Tensor` of shape `(batch_size, num_piloted, hidden_size)`): The queries.
        masks (`torch.Tensor` of shape `(batch_size, num_piloted, height, width)`):
            Their masks, 0 or 1, at the image's size; those of padding are empty.
    """

    hidden_states: torch.Tensor
    masks: torch.Tensor


@auto_docstring(custom_intro="Output of the transformer decoder.")
@dataclass
class MaSSFormerTransformerDecoderOutput(ModelOutput):
    r"""
    last_hidden_state (`torch.Tensor` of shape `(batch_size, num_queries, hidden_size)`):
        The normalized queries after the last decoder layer.
    intermediate_hidden_states (`tuple(torch.Tensor)` of length `num_hidden_layers + 1`):
        The normalized queries before the first layer and after each layer, each shaped like `last_hidden_state`.
    mask_embeddings (`tuple(torch.Tensor)` of length `num_hidden_layers + 1`):
        The mask embeddings of each step, each shaped like `last_hidden_state`.
    hidden_states (`tuple(torch.Tensor)`, *optional*, returned when `output_hidden_states=True` is passed):
        The queries before the first layer and after each layer, before normalization, each shaped like
        `last_hidden_state`.
    attentions (`tuple(torch.Tensor)`, *optional*, returned when `output_attentions=True` is passed):
        Cross-attention weights of each layer, of shape `(batch_size, num_heads, num_queries, memory_length)`.
    """

    last_hidden_state: torch.Tensor | None = None
    intermediate_hidden_states: tuple[torch.Tensor, ...] | None = None
    mask_embeddings: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@auto_docstring(custom_intro="Output of the pixel decoder and the transformer decoder.")
@dataclass
class MaSSFormerModelOutput(ModelOutput):
    r"""
    last_hidden_state (`torch.Tensor` of shape `(batch_size, num_queries, hidden_size)`):
        The normalized queries after the last decoder layer.
    intermediate_hidden_states (`tuple(torch.Tensor)` of length `num_hidden_layers + 1`):
        The normalized queries before the first layer and after each layer, each shaped like `last_hidden_state`.
    mask_embeddings (`tuple(torch.Tensor)` of length `num_hidden_layers + 1`):
        The embeddings whose product with the mask features gives the masks of each step, each shaped like
        `last_hidden_state`.
    mask_features (`torch.Tensor` of shape `(batch_size, hidden_size, height / 2, width / 2)`, *optional*):
        The features of the paper's D1; their product with `mask_embeddings` gives the mask logits. Not returned when
        `output_pixel_features=False` is passed.
    masks_queries_logits (`torch.Tensor` of shape `(batch_size, num_queries, height / 2, width / 2)`, *optional*):
        Mask logits of each query after the last layer, returned when `output_pixel_features=False` is passed.
    edge_logits (`torch.Tensor` of shape `(batch_size, 1, height / 2, width / 2)`):
        Logits of the edges between classes (Eq. 4).
    pixel_decoder_hidden_states (`tuple(torch.Tensor)`, *optional*):
        The memories of the transformer decoder (the paper's D4, D3, D2), of shapes
        `(batch_size, hidden_size, height / s, width / s)` with s = 32, 16, 8. Not returned when
        `output_pixel_features=False` is passed.
    semantic_maps (`tuple(torch.Tensor)`, *optional*, returned if the backbone has semantic layers):
        The semantic maps, of shapes `(batch_size, num_labels, height / s, width / s)` with s = 4, 8, 16, 32.
    hidden_states (`tuple(torch.Tensor)`, *optional*, returned when `output_hidden_states=True` is passed):
        The queries before the first layer and after each layer, before normalization, each shaped like
        `last_hidden_state`.
    attentions (`tuple(torch.Tensor)`, *optional*, returned when `output_attentions=True` is passed):
        Cross-attention weights of each layer, of shape `(batch_size, num_heads, num_queries, memory_length)`.
    """

    last_hidden_state: torch.Tensor | None = None
    intermediate_hidden_states: tuple[torch.Tensor, ...] | None = None
    mask_embeddings: tuple[torch.Tensor, ...] | None = None
    mask_features: torch.Tensor | None = None
    masks_queries_logits: torch.Tensor | None = None
    edge_logits: torch.Tensor | None = None
    pixel_decoder_hidden_states: tuple[torch.Tensor, ...] | None = None
    semantic_maps: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@auto_docstring(
    custom_intro="""
    Output of [`MaSSFormerForSemanticSegmentation`], to be passed to
    [`MaSSFormerImageProcessor.post_process_semantic_segmentation`].
    """
)
@dataclass
class MaSSFormerForSemanticSegmentationOutput(ModelOutput):
    r"""
    loss (`torch.Tensor`, *optional*, returned when `labels` are given):
        The sum of all weighted terms (Eq. 6), a scalar.
    class_queries_logits (`torch.Tensor` of shape `(batch_size, num_queries, num_labels + 1)`):
        Class logits of each query; the last column is "no object". Outside training, a model with
        `config.context_size` has one query per class.
    masks_queries_logits (`torch.Tensor` of shape `(batch_size, num_queries, height / 2, width / 2)`):
        Mask logits of each query.
    edge_logits (`torch.Tensor` of shape `(batch_size, 1, height / 2, width / 2)`):
        Logits of the edges between classes (Eq. 4).
    auxiliary_logits (`list[dict[str, torch.Tensor]]`, *optional*):
        `class_queries_logits` and `masks_queries_logits` (the latter at a quarter of the input's size) before the
        first decoder layer and after every layer but the last. Returned when `labels` are given or
        `output_auxiliary_logits=True`.
    semantic_maps (`tuple(torch.Tensor)`, *optional*, returned if the backbone has semantic layers):
        The semantic maps, of shapes `(batch_size, num_labels, height / s, width / s)` with s = 4, 8, 16, 32.
    hidden_states (`tuple(torch.Tensor)`, *optional*, returned when `output_hidden_states=True` is passed):
        The queries before the first layer and after each layer, of shape `(batch_size, num_queries, hidden_size)`.
    attentions (`tuple(torch.Tensor)`, *optional*, returned when `output_attentions=True` is passed):
        Cross-attention weights of each layer, of shape `(batch_size, num_heads, num_queries, memory_length)`.
    loss_dict (`dict[str, torch.Tensor]`, *optional*, returned when `labels` are given):
        The weighted terms that add up to `loss`, as scalars without gradients: `loss_cross_entropy`, `loss_mask` and
        `loss_dice` of the final step, the same with suffix `_0`, `_1` ... for earlier steps, `loss_edge`,
        `loss_semantic` if the backbone has semantic layers, `loss_pixel` with `config.pixel_loss_weight`, and
        `loss_cross_entropy_piloted` ... in training with `config.mask_piloted`.
    """

    loss: torch.Tensor | None = None
    class_queries_logits: torch.Tensor | None = None
    masks_queries_logits: torch.Tensor | None = None
    edge_logits: torch.Tensor | None = None
    auxiliary_logits: list[dict[str, torch.Tensor]] | None = None
    semantic_maps: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    loss_dict: dict[str, torch.Tensor] | None = None

    @property
    def logits(self) -> torch.Tensor:
        """
        Compute the scores of each class, the sum over queries of class probability times mask probability: a
        `torch.Tensor` of shape `(batch_size, num_labels, height / 2, width / 2)`.
        """
        # The model always sets both.
        return semantic_scores(self.class_queries_logits, self.masks_queries_logits)  # ty: ignore[invalid-argument-type]


def num_memories(config: MaSSFormerConfig) -> int:
    """Return how many of the three memories the decoder's layers read."""
    return min(3, config.num_hidden_layers)


def sine_position_embedding(
    height: int, width: int, hidden_size: int, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """
    Encode the rows and columns of a map, normalized to (0, 2 pi], as sines and cosines, computed in float32 (release;
    DETR).

    Returns:
        `torch.Tensor` of shape `(hidden_size, height, width)`: rows in the first half of the channels, columns in the
        second, sine and cosine alternating.
    """
    num_features = hidden_size // 2
    frequency = torch.arange(num_features, dtype=torch.float32, device=device)
    frequency = 10000 ** (2 * (frequency // 2) / num_features)
    encodings = []
    for size in (height, width):
        position = torch.arange(1, size + 1, dtype=torch.float32, device=device)
        angle = (position / (size + 1e-6) * (2 * math.pi))[:, None] / frequency
        encodings.append(torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1).to(dtype))
    rows = encodings[0].T[:, :, None].expand(-1, -1, width)
    columns = encodings[1].T[:, None, :].expand(-1, height, -1)
    return torch.cat((rows, columns))


def resize(feature_map: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize a map bilinearly, with half-pixel centers and without antialiasing, like the release."""
    return F.interpolate(feature_map, size=list(size), mode="bilinear", align_corners=False)


def backbone_layout(backbone: nn.Module, device: torch.device) -> torch.memory_format:
    """
    Return the memory format of a backbone's input: channels last, which is faster, except where training would crash.
    On CPUs, oneDNN's gradient of strided convolutions of up to 8 channels writes beyond its memory (torch 2.15).
    """
    if device.type == "cpu" and torch.is_grad_enabled():
        for module in backbone.modules():
            if isinstance(module, nn.Conv2d) and module.in_channels <= 8 and module.stride != (1, 1):
                return torch.contiguous_format
    return torch.channels_last


def row_bands(first: int, last: int, row_values: int, multiple: int) -> list[tuple[int, int]]:
    """
    Split the rows `first` to `last` of a map with `row_values` values per row into bands whose height is a multiple of
    `multiple`. Returns the first row of each band and the row after its last.
    """
    rows = max(1, BAND_VALUES // (multiple * row_values)) * multiple
    return [(top, min(top + rows, last)) for top in range(first, last, rows)]


def halve(feature_map: torch.Tensor) -> torch.Tensor:
    """Resize a map to half its size, which gives the means of 2 x 2 values."""
    return resize(feature_map, (feature_map.shape[-2] // 2, feature_map.shape[-1] // 2))


def upsample_rows(feature_map: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Compute the rows `first` to `last` of a map resized to twice its size."""
    height, width = feature_map.shape[-2:]
    top, bottom = max(0, first // 2 - 1), min(height, (last + 1) // 2 + 1)
    upsampled = resize(feature_map[:, :, top:bottom], (2 * (bottom - top), 2 * width))
    return upsampled[:, :, first - 2 * top : last - 2 * top]


def join_rows(rows_of_bands: Iterator[tuple[torch.Tensor, ...]], bands: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Join the maps of consecutive bands into channels-last maps; an iterator can compute each band when needed."""
    feature_maps: list[torch.Tensor] = []
    start, end = bands[0][0], bands[-1][1]
    for (first, last), rows_of_maps in zip(bands, rows_of_bands, strict=True):
        for index, rows in enumerate(rows_of_maps):
            if first == start:
                batch_size, num_channels, _, width = rows.shape
                feature_map = rows.new_empty(batch_size, end - start, width, num_channels)
                feature_maps.append(feature_map.permute(0, 3, 1, 2))
            feature_maps[index][:, :, first - start : last - start] = rows
    return feature_maps


@contextlib.contextmanager
def untracked_statistics(module: nn.Module):
    """Leave the running statistics unchanged while activations are recomputed, so that they count once."""
    kept = [
        (layer, layer.momentum, layer.num_batches_tracked, layer.num_batches_tracked.clone())
        for layer in module.modules()
        if isinstance(layer, MaSSFormerBatchNorm | nn.SyncBatchNorm) and layer.num_batches_tracked is not None
    ]
    for layer, *_ in kept:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum, counter, count in kept:
            layer.momentum = momentum
            counter.copy_(count)


def additive_mask(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Compute the (B, 1, Q, K) additive attention mask of (B, Q, K) booleans that tell which keys are hidden."""
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return mask.masked_fill(hidden, torch.finfo(dtype).min)[:, None]


def add_point_noise(masks: torch.Tensor) -> torch.Tensor:
    """Move random positions of (B, Q, H, W) masks to the other side, up to `POINT_NOISE` times the mask's area."""
    share = POINT_NOISE * masks.mean(dim=(2, 3), keepdim=True)
    return (masks > 0) ^ (torch.rand_like(masks) < share)


def mask_logits(mask_embeddings: torch.Tensor, mask_features: torch.Tensor) -> torch.Tensor:
    """Compute the (B, Q, H, W) mask logits of (B, Q, C) embeddings over (B, C, H, W) features."""
    return (mask_embeddings @ mask_features.flatten(2)).unflatten(2, mask_features.shape[-2:])


def mask_logits_rows(mask_embeddings: torch.Tensor, mask_features: torch.Tensor) -> torch.Tensor:
    """Compute the same logits from channels-last features, as a channels-last (B, Q, H, W) map."""
    logits = mask_features.permute(0, 2, 3, 1).flatten(1, 2) @ mask_embeddings.transpose(1, 2)
    return logits.unflatten(1, mask_features.shape[-2:]).permute(0, 3, 1, 2)


def log_scores(class_queries_logits: torch.Tensor, masks_queries_logits: torch.Tensor) -> torch.Tensor:
    """Compute the logarithms of the scores of each class relative to their sum, (B, L, H, W)."""
    scores = semantic_scores(class_queries_logits.float(), masks_queries_logits.float()) + LEAST_SCORE
    return scores.log() - scores.sum(dim=1, keepdim=True).log()


def all_rows(embedding: nn.Embedding, device: torch.device) -> torch.Tensor:
    """
    Read all (N, C) vectors of an embedding through its forward pass: offloaded weights only exist within it, and
    adapters add to its output.
    """
    # Not `num_embeddings`, which the layers of adapters lack.
    return embedding(torch.arange(len(embedding.weight), device=device))


def split_queries(steps: Sequence[torch.Tensor], num_queries: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Split the (B, Q, C) states of each step into those of the learnable and those of the piloted queries."""
    return [states[:, :num_queries] for states in steps], [states[:, num_queries:] for states in steps]


def partition_windows(feature_map: torch.Tensor, window_size: int, rows: int, columns: int) -> torch.Tensor:
    """
    Split (B, C, H, W) into windows (B * rows * columns, window_size ** 2, C), row-major, padded with zeros.
    """
    batch_size, num_channels, height, width = feature_map.shape
    feature_map = F.pad(feature_map, (0, columns * window_size - width, 0, rows * window_size - height))
    windows = feature_map.reshape(batch_size, num_channels, rows, window_size, columns, window_size)
    return windows.permute(0, 2, 4, 3, 5, 1).reshape(batch_size * rows * columns, window_size**2, num_channels)


def merge_windows(windows: torch.Tensor, window_size: int, rows: int, columns: int) -> torch.Tensor:
    """Invert `partition_windows`, without removing the padding."""
    windows = windows.unflatten(1, (window_size, window_size)).unflatten(0, (-1, rows, columns))
    return windows.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class MaSSFormerBatchNorm(nn.BatchNorm2d):
    """Batch normalization with the configured epsilon and momentum."""

    def __init__(self, config: MaSSFormerConfig, num_features: int):
        super().__init__(num_features, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum)


def pooled_normalization(config: MaSSFormerConfig, num_features: int) -> nn.Module:
    """Return the normalization of maps with one pixel."""
    # CODEPATH: true in the release and in every converted checkpoint.
    return MaSSFormerBatchNorm(config, num_features) if config.pooled_batch_norm else nn.Identity()


class MaSSFormerConvLayer(nn.Module):
    """Convolution without bias, batch normalization (or another, if given), ReLU (the paper's CBR)."""

    def __init__(
        self,
        config: MaSSFormerConfig,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        normalization: nn.Module | None = None,
    ):
        super().__init__()
        self.convolution = nn.Conv2d(
            in_channels, out_channels, kernel_size=kernel_size, padding=kernel_size // 2, bias=False
        )
        self.normalization = MaSSFormerBatchNorm(config, out_channels) if normalization is None else normalization
        self.activation = nn.ReLU()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.normalization(self.convolution(hidden_states)))


class MaSSFormerSqueezeExcitation(nn.Module):
    """Channel attention with a residual connection. The sigmoid is applied twice, as in the release."""

    def __init__(self, config: MaSSFormerConfig):
        super().__init__()
        hidden_size = config.pixel_decoder_hidden_size
        reduced_size = hidden_size // config.squeeze_reduction
        self.reduce = nn.Conv2d(hidden_size, reduced_size, kernel_size=1, bias=False)
        self.normalization = pooled_normalization(config, reduced_size)
        self.activation = nn.ReLU()
        self.expand = nn.Conv2d(reduced_size, hidden_size, kernel_size=1, bias=False)

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        weights = self.reduce(feature_map.mean(dim=(2, 3), keepdim=True))
        weights = self.expand(self.activation(self.normalization(weights)))
        return torch.addcmul(feature_map, feature_map, weights.sigmoid().sigmoid())


class MaSSFormerDeformableConvLayer(nn.Module):
    """Deformable convolution with offsets and modulation computed from its input, batch normalization, ReLU."""

    def __init__(self, config: MaSSFormerConfig, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        self.num_taps, self.halo = kernel_size**2, kernel_size // 2
        self.offset = nn.Conv2d(in_channels, 3 * self.num_taps, kernel_size=kernel_size, padding=self.halo)
        self.convolution = ModulatedDeformConv2d(in_channels, out_channels, kernel_size, config.deform_conv_engine)
        self.normalization = MaSSFormerBatchNorm(config, out_channels)
        self.activation = nn.ReLU()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        offsets, modulation = self.offset(hidden_states).split((2 * self.num_taps, self.num_taps), dim=1)
        hidden_states = self.convolution(hidden_states, offsets, modulation.sigmoid())
        return self.activation(self.normalization(hidden_states))

    def forward_rows(
        self, read_rows: Callable[[int, int], torch.Tensor], height: int, first: int, last: int
    ) -> torch.Tensor:
        """Compute rows of the output; `read_rows(first, last)` returns those of the input, which has `height` rows."""
        margin = max(self.halo, READ_AHEAD)
        top, bottom = max(0, first - margin), min(height, last + margin)
        window = read_rows(top, bottom)
        above, below = max(0, first - self.halo), min(height, last + self.halo)
        offsets_and_modulation = self.offset(window[:, :, above - top : below - top])
        offsets, modulation = offsets_and_modulation[:, :, first - above : last - above].split(
            (2 * self.num_taps, self.num_taps), dim=1
        )
        first_read, last_read = rows_read(offsets, first, height)
        if first_read < top or last_read > bottom:
            top, window = first_read, read_rows(first_read, last_read)
        hidden_states = self.convolution(window, offsets, modulation.sigmoid(), first_row=first - top)
        return self.activation(self.normalization(hidden_states))


class MaSSFormerUpsampleLayer(nn.Module):
    """Learned upsampling by 2: transposed convolution, batch normalization, ReLU."""

    def __init__(self, config: MaSSFormerConfig):
        super().__init__()
        hidden_size = config.pixel_decoder_hidden_size
        self.convolution = nn.ConvTranspose2d(hidden_size, hidden_size, kernel_size=4, stride=2, padding=1, bias=False)
        self.normalization = MaSSFormerBatchNorm(config, hidden_size)
        self.activation = nn.ReLU()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.normalization(self.convolution(hidden_states)))


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    attention_weights = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        attention_weights = attention_weights + attention_mask
    attention_weights = attention_weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    attention_weights = F.dropout(attention_weights, p=dropout, training=module.training)
    return (attention_weights @ value).transpose(1, 2).contiguous(), attention_weights


class MaSSFormerAttention(nn.Module):
    """Multi-head attention with queries, keys and values of the same width."""

    def __init__(self, config: MaSSFormerConfig, width: int, heads: int):
        super().__init__()
        self.config = config
        self.head_dim = width // heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        queries = self.q_proj(queries).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
        keys = self.k_proj(keys).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
        values = self.v_proj(values).unflatten(2, (-1, self.head_dim)).transpose(1, 2)

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attention_output, attention_weights = attention_interface(
            self, queries, keys, values, attention_mask, scaling=self.scaling, dropout=0.0, **kwargs
        )
        return self.out_proj(attention_output.flatten(2)), attention_weights


class MaSSFormerMLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, embed_dim: int, inner_dim: int, activation: str):
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, inner_dim)
        self.fc2 = nn.Linear(inner_dim, embed_dim)
        self.activation = ACT2FN[activation]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class MaSSFormerWindowAttentionLayer(GradientCheckpointingLayer):
    """
    Attention of the semantic map to the detail map and then to itself, within each window (Eq. 1 and 2), with residual
    connections and without normalization (release).
    """

    def __init__(self, config: MaSSFormerConfig):
        super().__init__()
        hidden_size, num_heads = config.pixel_decoder_hidden_size, config.cross_semantic_num_attention_heads
        self.detail_attention = MaSSFormerAttention(config, hidden_size, num_heads)
        self.detail_mlp = MaSSFormerMLP(hidden_size, config.cross_semantic_intermediate_size, "relu")
        self.self_attention = MaSSFormerAttention(config, hidden_size, num_heads)
        self.self_mlp = MaSSFormerMLP(hidden_size, config.cross_semantic_intermediate_size, "relu")

    def forward(
        self,
        hidden_states: torch.Tensor,
        detail_windows: torch.Tensor,
        position_embeddings: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        queries, keys = hidden_states + position_embeddings, detail_windows + position_embeddings
        attended, _ = self.detail_attention(queries, keys, detail_windows, attention_mask)
        hidden_states = hidden_states + attended
        hidden_states = hidden_states + self.detail_mlp(hidden_states)

        queries = hidden_states + position_embeddings
        attended, _ = self.self_attention(queries, queries, hidden_states, attention_mask)
        hidden_states = hidden_states + attended
        return hidden_states + self.self_mlp(hidden_states)


class MaSSFormerCrossSemanticTransmission(nn.Module):
    """
    Module CST: adds the mean of the deepest features to the stride-32 map and carries its semantics to stride 16
    (Eq. 1 and 2) and to stride 8. With `cross_semantic_residual`, every step is added to a plain one.
    """

    def __init__(self, config: MaSSFormerConfig, context_channels: int):
        super().__init__()
        hidden_size = config.pixel_decoder_hidden_size
        self.window_size = config.window_size
        self.has_residual = config.cross_semantic_residual
        self.context_projection = MaSSFormerConvLayer(
            config, context_channels, hidden_size, normalization=pooled_normalization(config, hidden_size)
        )
        self.semantic_convolution = MaSSFormerDeformableConvLayer(
            config, hidden_size, hidden_size, config.deform_kernel_size
        )
        self.semantic_upsample = MaSSFormerUpsampleLayer(config)
        self.attention = MaSSFormerWindowAttentionLayer(config)
        self.detail_convolution = MaSSFormerDeformableConvLayer(
            config, hidden_size, hidden_size, config.deform_kernel_size
        )
        self.detail_upsample = MaSSFormerUpsampleLayer(config)

    def attend(self, semantic: torch.Tensor, detail: torch.Tensor) -> torch.Tensor:
        """Apply window attention to maps of any size; the padding of windows is neither read nor kept."""
        num_channels, height, width = detail.shape[1:]
        # Without negative numbers, whose quotients ONNX rounds the other way.
        rows, columns = ((size + self.window_size - 1) // self.window_size for size in (height, width))
        attention_mask = None
        # A graph for any size always needs the mask.
        if is_tracing(detail) or height % self.window_size or width % self.window_size:
            inside = partition_windows(torch.ones_like(detail[:, :1]), self.window_size, rows, columns)
            attention_mask = ((1 - inside) * torch.finfo(inside.dtype).min).transpose(1, 2)[:, None]
        position_embeddings = sine_position_embedding(
            self.window_size, self.window_size, num_channels, detail.device, detail.dtype
        )
        windows = self.attention(
            partition_windows(semantic, self.window_size, rows, columns),
            partition_windows(detail, self.window_size, rows, columns),
            position_embeddings.flatten(1).T,
            attention_mask,
        )
        attended = merge_windows(windows, self.window_size, rows, columns)
        # Slices would specialize a graph for any size on whether this size fills its windows.
        for axis, size in ((2, height), (3, width)):
            attended = attended.index_select(axis, torch.arange(size, device=detail.device))
        return attended

    def forward(
        self, semantic: torch.Tensor, detail: torch.Tensor, deepest_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        context = self.context_projection(deepest_features.mean(dim=(2, 3), keepdim=True))
        # CODEPATH: false in the release and in every converted checkpoint.
        if self.has_residual:
            semantic = self.semantic_convolution(semantic + context) + semantic
            upsampled = self.upsample(self.semantic_upsample, semantic)
            detail = self.detail_convolution(self.attend(upsampled, detail)) + detail + upsampled
            return semantic, detail, self.upsample(self.detail_upsample, detail)
        semantic = self.semantic_convolution(semantic + context)
        attended = self.attend(self.semantic_upsample(semantic), detail)
        detail = self.detail_convolution(attended)
        return semantic, detail, self.detail_upsample(detail)

    def upsample(self, layer: MaSSFormerUpsampleLayer, hidden_states: torch.Tensor) -> torch.Tensor:
        """Upsample by 2 with a layer beside bilinear interpolation."""
        height, width = hidden_states.shape[-2:]
        return layer(hidden_states) + resize(hidden_states, (2 * height, 2 * width))


class MaSSFormerReceptiveFieldBroadening(nn.Module):
    """
    Module RFB: parallel deformable convolutions of several kernel sizes (Eq. 3) and upsampling by 2. With
    `receptive_field_residual`, both are added to a plain path.
    """

    def __init__(self, config: MaSSFormerConfig):
        super().__init__()
        hidden_size, kernel_sizes = config.pixel_decoder_hidden_size, config.receptive_field_kernel_sizes
        self.has_residual = config.receptive_field_residual
        self.branches = nn.ModuleList(
            MaSSFormerDeformableConvLayer(config, hidden_size, hidden_size // len(kernel_sizes), kernel_size)
            for kernel_size in kernel_sizes
        )
        self.projection = nn.Conv2d(hidden_size, hidden_size, kernel_size=1)
        self.projection_normalization = MaSSFormerBatchNorm(config, hidden_size)
        self.upsample = nn.Conv2d(hidden_size, hidden_size, kernel_size=3, padding=1)
        self.upsample_normalization = MaSSFormerBatchNorm(config, hidden_size)
        self.activation = nn.ReLU()

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = hidden_states.shape[-2:]
        broadened = torch.cat([branch(hidden_states) for branch in self.branches], dim=1)
        broadened = self.activation(self.projection_normalization(self.projection(broadened)))
        # CODEPATH: false in the release and in every converted checkpoint.
        if self.has_residual:
            broadened = broadened + hidden_states
        upsampled = resize(broadened, (2 * height, 2 * width))
        body = self.activation(self.upsample_normalization(self.upsample(upsampled)))
        return broadened, body + upsampled if self.has_residual else body


class MaSSFormerSpatialAttention(nn.Module):
    """
    Weights for each position from its mean and maximum over channels, with a residual connection. The sigmoid comes
    before the convolution (release), so the weights are unbounded.
    """

    def __init__(self, config: MaSSFormerConfig):
        super().__init__()
        kernel_size = config.spatial_attention_kernel_size
        self.halo = kernel_size // 2
        self.convolution = nn.Conv2d(2, 1, kernel_size=kernel_size, padding=self.halo)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        statistics = torch.cat(
            (hidden_states.mean(dim=1, keepdim=True), hidden_states.amax(dim=1, keepdim=True)), dim=1
        )
        return hidden_states + hidden_states * self.convolution(statistics.sigmoid())


class MaSSFormerLowLevelStructure(nn.Module):
    """Module LSE: details at stride 2 from the image and the stride-4 map, in two halves of the channels."""

    def __init__(self, config: MaSSFormerConfig, image_channels: int):
        super().__init__()
        hidden_size = config.pixel_decoder_hidden_size
        half_size = hidden_size // 2
        self.pointwise = MaSSFormerConvLayer(config, image_channels + half_size, half_size)
        self.pointwise_attention = MaSSFormerSpatialAttention(config)
        self.deformable = MaSSFormerDeformableConvLayer(
            config, image_channels + half_size, half_size, config.deform_kernel_size
        )
        self.deformable_attention = MaSSFormerSpatialAttention(config)
        self.projection = MaSSFormerConvLayer(config, hidden_size, hidden_size)

    def merge(self, pointwise: torch.Tensor, deformed: torch.Tensor) -> torch.Tensor:
        return self.projection(torch.cat((pointwise, deformed), dim=1))

    def forward(self, pixel_values: torch.Tensor, feature_map: torch.Tensor) -> torch.Tensor:
        size = (pixel_values.shape[-2] // 2, pixel_values.shape[-1] // 2)
        # Both inputs of the concatenation need one layout to keep it.
        image = resize(pixel_values, size).contiguous(memory_format=torch.channels_last)
        first, second = resize(feature_map, size).chunk(2, dim=1)
        pointwise = self.pointwise(torch.cat((image, first), dim=1))
        deformed = self.deformable(torch.cat((image, second), dim=1))
        return self.merge(self.pointwise_attention(pointwise), self.deformable_attention(deformed))

    def branch_rows(
        self, pixel_values: torch.Tensor, halves: list[torch.Tensor], first: int, last: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute rows of both branches before attention, from input rows that are upsampled when they are read."""
        height, width = pixel_values.shape[-2] // 2, pixel_values.shape[-1] // 2

        def read_rows(features: torch.Tensor, top: int, bottom: int) -> torch.Tensor:
            image = resize(pixel_values[:, :, 2 * top : 2 * bottom], (bottom - top, width))
            image = image.contiguous(memory_format=torch.channels_last)
            return torch.cat((image, upsample_rows(features, top, bottom)), dim=1)

        pointwise = self.pointwise(read_rows(halves[0], first, last))
        return pointwise, self.deformable.forward_rows(functools.partial(read_rows, halves[1]), height, first, last)

    def forward_bands(
        self, pixel_values: torch.Tensor, feature_map: torch.Tensor, bands: list[tuple[int, int]]
    ) -> Iterator[torch.Tensor]:
        """Yield the output band by band. Rows that the attention of two bands needs are computed once."""
        height, halo = pixel_values.shape[-2] // 2, self.pointwise_attention.halo
        halves = [x.contiguous(memory_format=torch.channels_last) for x in feature_map.chunk(2, dim=1)]
        attentions = (self.pointwise_attention, self.deformable_attention)
        kept, done = None, 0
        for first, last in bands:
            bottom = min(height, last + halo)
            windows = self.branch_rows(pixel_values, halves, done, bottom)
            if kept is not None:
                windows = tuple(torch.cat(x, dim=2) for x in zip(kept, windows, strict=True))
            top, done = bottom - windows[0].shape[2], bottom
            attended = [attend(x) for attend, x in zip(attentions, windows, strict=True)]
            kept = [x[:, :, max(0, last - halo - top) :] for x in windows]
            yield self.merge(*(x[:, :, first - top : last - top] for x in attended))


class MaSSFormerEdgeHead(nn.Module):
    """Predictor of the edges between classes (Eq. 4)."""

    def __init__(self, config: MaSSFormerConfig):
        super().__init__()
        self.projection = MaSSFormerConvLayer(config, config.pixel_decoder_hidden_size, config.edge_hidden_size)
        self.classifier = nn.Conv2d(config.edge_hidden_size, 1, kernel_size=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.projection(hidden_states))


class MaSSFormerEdgeGuidedFusion(nn.Module):
    """
    Module EGF: gates the body with the details (Eq. 5), refines it, and adds the result to the body; with
    `detail_residual`, the details are added too.
    """

    def __init__(self, config: MaSSFormerConfig):
        super().__init__()
        hidden_size = config.pixel_decoder_hidden_size
        reduced_size = hidden_size // config.fusion_reduction
        self.has_residual = config.detail_residual
        self.reduce = nn.Conv2d(hidden_size, reduced_size, kernel_size=1)
        self.deformable = MaSSFormerDeformableConvLayer(config, reduced_size, reduced_size, config.deform_kernel_size)
        self.expand = nn.Conv2d(reduced_size, hidden_size, kernel_size=1)
        self.normalization = MaSSFormerBatchNorm(config, hidden_size)

    def gate(self, detail: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        return self.reduce(detail.sigmoid() * body)

    def merge(self, refined: torch.Tensor, detail: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        fused = self.normalization(self.expand(refined)) + body
        # CODEPATH: false in the release and in every converted checkpoint.
        return fused + detail if self.has_residual else fused

    def forward(self, detail: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        return self.merge(self.deformable(self.gate(detail, body)), detail, body)

    def kept(self, detail: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        """Return the map that the computation in bands keeps: the details if they are added, or the gated body."""
        return detail if self.has_residual else self.gate(detail, body)

    def refine_bands(self, kept: torch.Tensor, body: torch.Tensor, bands: list[tuple[int, int]]) -> torch.Tensor:
        """Compute the rows of the deformable convolution that belong to the bands, from complete maps."""

        def read_rows(top: int, bottom: int) -> torch.Tensor:
            rows = kept[:, :, top:bottom]
            return self.gate(rows, upsample_rows(body, top, bottom)) if self.has_residual else rows

        rows_of_bands = ((self.deformable.forward_rows(read_rows, kept.shape[2], *band),) for band in bands)
        return join_rows(rows_of_bands, bands)[0]


class MaSSFormerPixelDecoder(nn.Module):
    """
    Pixel decoder: computes the memories of the transformer decoder, the mask features and the edges from the image and
    four feature maps (paper, section 4.2 and Figure 3).

    The half-resolution part, by far the largest, is computed at once or in bands of rows. Two deformable convolutions
    read anywhere in their inputs: the input of the first is upsampled where it is read, that of the second is kept.
    """

    # Set by `gradient_checkpointing_enable`.
    gradient_checkpointing = False

    def __init__(self, config: MaSSFormerConfig, feature_channels: list[int], image_channels: int):
        super().__init__()
        hidden_size = config.pixel_decoder_hidden_size
        self.lateral_projections = nn.ModuleList(
            MaSSFormerConvLayer(config, in_channels, hidden_size) for in_channels in feature_channels
        )
        self.squeeze_excitations = nn.ModuleList(MaSSFormerSqueezeExcitation(config) for _ in feature_channels)
        self.cross_semantic_transmission = MaSSFormerCrossSemanticTransmission(config, feature_channels[-1])
        self.receptive_field_broadening = MaSSFormerReceptiveFieldBroadening(config)
        self.low_level_structure = MaSSFormerLowLevelStructure(config, image_channels)
        self.edge_guided_fusion = MaSSFormerEdgeGuidedFusion(config)
        self.edge_head = MaSSFormerEdgeHead(config)
        self.mask_projection = MaSSFormerConvLayer(config, hidden_size, config.hidden_size)
        self.memory_projections = nn.ModuleList(
            MaSSFormerConvLayer(config, hidden_size, config.hidden_size) for _ in range(num_memories(config))
        )

    def semantic_branch(
        self, feature_maps: list[torch.Tensor]
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """
        Compute the global semantic branch: the memories (the paper's D4, D3, D2 at strides 32, 16 and 8), D2 at
        stride 4, and S1 at stride 4. The list is emptied to free the feature maps, which take gigabytes at 4K.
        """
        deepest_features, squeezed = feature_maps[-1], []
        for index in reversed(range(len(feature_maps))):
            squeezed.append(self.squeeze_excitations[index](self.lateral_projections[index](feature_maps.pop())))
        s4, s3, s2, s1 = squeezed
        d4, d3, upsampled = self.cross_semantic_transmission(s4, s3, deepest_features)
        d2, body = self.receptive_field_broadening(upsampled + s2)
        memories = [project(x) for project, x in zip(self.memory_projections, (d4, d3, d2), strict=False)]
        return memories, body, s1

    def structure_branch(
        self, pixel_values: torch.Tensor, body: torch.Tensor, low_level: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the mask features and edge logits with the local structure branch and the fusion, at stride 2."""
        detail = self.low_level_structure(pixel_values, low_level)
        body = resize(body, detail.shape[-2:])
        edge_logits = self.edge_head(body + detail)
        return self.mask_projection(self.edge_guided_fusion(detail, body)), edge_logits

    def checkpointed_structure_branch(
        self, pixel_values: torch.Tensor, body: torch.Tensor, low_level: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Run the structure branch without keeping its activations. `GradientCheckpointingLayer` would update the running
        statistics a second time when the backward pass recomputes them.
        """
        is_recomputed = False

        def run(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            nonlocal is_recomputed
            context = untracked_statistics(self) if is_recomputed else contextlib.nullcontext()
            is_recomputed = True
            with context:
                return self.structure_branch(*arguments)

        checkpoint: Any = self._gradient_checkpointing_func
        return checkpoint(run, pixel_values, body, low_level)

    def structure_bands(
        self, pixel_values: torch.Tensor, body: torch.Tensor, low_level: torch.Tensor, bands: list[tuple[int, int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the map that the fusion keeps and the edge logits in bands of rows."""

        def rows_of_bands() -> Iterator[tuple[torch.Tensor, ...]]:
            details = self.low_level_structure.forward_bands(pixel_values, low_level, bands)
            for (first, last), detail in zip(bands, details, strict=True):
                body_rows = upsample_rows(body, first, last)
                yield self.edge_guided_fusion.kept(detail, body_rows), self.edge_head(body_rows + detail)

        kept, edge_logits = join_rows(rows_of_bands(), bands)
        return kept, edge_logits

    def mask_feature_bands(
        self, refined: torch.Tensor, kept: torch.Tensor, body: torch.Tensor, bands: list[tuple[int, int]]
    ) -> Iterator[torch.Tensor]:
        """
        Yield the mask features band by band, from the refined rows of these bands, the kept rows of the same bands and
        the complete body.
        """
        start = bands[0][0]
        for first, last in bands:
            rows = slice(first - start, last - start)
            body_rows = upsample_rows(body, first, last)
            yield self.mask_projection(self.edge_guided_fusion.merge(refined[:, :, rows], kept[:, :, rows], body_rows))

    def forward(
        self, pixel_values: torch.Tensor, feature_maps: list[torch.Tensor]
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        memories, body, low_level = self.semantic_branch(feature_maps)
        if self.gradient_checkpointing and self.training:
            mask_features, edge_logits = self.checkpointed_structure_branch(pixel_values, body, low_level)
        else:
            mask_features, edge_logits = self.structure_branch(pixel_values, body, low_level)
        return memories, mask_features, edge_logits


class MaSSFormerMaskEmbedder(nn.Module):
    """Three linear layers from normalized queries to mask embeddings."""

    def __init__(self, config: MaSSFormerConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.hidden_size)
        self.fc2 = nn.Linear(config.hidden_size, config.hidden_size)
        self.fc3 = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = nn.ReLU()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.activation(self.fc1(hidden_states))
        hidden_states = self.activation(self.fc2(hidden_states))
        return self.fc3(hidden_states)


class MaSSFormerTransformerDecoderLayer(GradientCheckpointingLayer):
    """Masked cross-attention, self-attention and MLP, each followed by normalization (Mask2Former, release)."""

    def __init__(self, config: MaSSFormerConfig):
        super().__init__()
        self.cross_attention = MaSSFormerAttention(config, config.hidden_size, config.num_attention_heads)
        self.cross_attention_layer_norm = nn.LayerNorm(config.hidden_size)
        self.self_attention = MaSSFormerAttention(config, config.hidden_size, config.num_attention_heads)
        self.self_attention_layer_norm = nn.LayerNorm(config.hidden_size)
        self.mlp = MaSSFormerMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        query_positions: torch.Tensor,
        keys: torch.Tensor,
        memory: torch.Tensor,
        attention_mask: torch.Tensor,
        self_attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        residual = hidden_states
        hidden_states, _ = self.cross_attention(
            hidden_states + query_positions, keys, memory, attention_mask, **kwargs
        )
        hidden_states = self.cross_attention_layer_norm(residual + hidden_states)

        residual = hidden_states
        queries = hidden_states + query_positions
        hidden_states, _ = self.self_attention(queries, queries, hidden_states, self_attention_mask, **kwargs)
        hidden_states = self.self_attention_layer_norm(residual + hidden_states)

        return self.final_layer_norm(hidden_states + self.mlp(hidden_states))


@auto_docstring
class MaSSFormerPreTrainedModel(PreTrainedModel):
    config: MaSSFormerConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["MaSSFormerTransformerDecoderLayer", "MaSSFormerWindowAttentionLayer"]
    _supports_sdpa = True
    # The loss is a mean over the batch, so `Trainer` must not pass the number of items.
    accepts_loss_kwargs = False
    # Set by `fuse`.
    is_fused = False

    # Overridden because backbones without attention, such as ResNet, refuse every implementation but "eager".
    def set_attn_implementation(self, attn_implementation: str | dict, allow_all_kernels: bool = False):
        """Set the attention implementation like the base class, except in a backbone without attention."""
        backbone = getattr(self.base_model, "backbone", None)
        if isinstance(attn_implementation, str) and not getattr(backbone, "has_attentions", True):
            attn_implementation = {"": attn_implementation}
        super().set_attn_implementation(attn_implementation, allow_all_kernels=allow_all_kernels)

    def fuse(self):
        """
        Prepare the model for inference, in place: fold batch normalizations into the preceding convolutions, run
        activations in place and store convolution weights channels-last. Outputs stay the same up to rounding; the
        model can no longer be trained or saved.

        Returns:
            The model itself, in eval mode.

        Raises:
            ValueError: If weights are offloaded.
        """
        self.eval()
        if self.device.type == "meta" or any(hasattr(module, "_hf_hook") for module in self.modules()):
            raise ValueError("Offloaded weights cannot be fused. Call `fuse` before the model is offloaded.")
        if not self.is_fused:
            image_channels = getattr(self.config.backbone_config, "num_channels", 3)
            example = torch.zeros(1, image_channels, 64, 64, dtype=self.dtype, device=self.device)
            fold_batch_norms(self, example)
            self.to(memory_format=torch.channels_last)
            self.is_fused = True
        return self

    # Overridden because modules have no hook for changes of mode, and every training loop and wrapper calls it.
    def train(self, mode: bool = True):
        """
        Set the mode like the base class. With adapters of peft, frozen batch normalizations stay in eval mode: their
        running statistics are not part of the adapter.

        Raises:
            ValueError: If the model is fused, and is to be trained or has adapters.
        """
        if self.is_fused and has_adapters(self):
            raise ValueError(
                "Adapters do not fit a fused model, whose convolutions contain the normalizations after them. Add or "
                "load adapters before calling `fuse`, and merge them first."
            )
        if mode and self.is_fused:
            raise ValueError(
                "A fused model has no batch normalizations left and cannot be trained. Load the model again and train "
                "it before calling `fuse`."
            )
        super().train(mode)
        fix_statistics_under_adapters(self)
        return self

    # Overridden because no hook runs before the library starts to write the folder.
    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs):
        """
        Save the model like the base class.

        Raises:
            ValueError: If the model is fused.
        """
        if self.is_fused:
            raise ValueError(
                f"A fused model cannot be saved to {save_directory}: its weights no longer fit the architecture. Save "
                "the model before calling `fuse`, and fuse it again after loading."
            )
        super().save_pretrained(save_directory, *args, **kwargs)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False):
        # The library assumes that custom code overwrites loaded weights and skips modules without parameters of their
        # own. This code writes through `transformers.initialization`, which leaves loaded weights unchanged.
        super()._initialize_weights(module, is_custom_code=False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """
        Initialize like the release: PyTorch's defaults, except for the modules listed here; with
        `initialization="identity"`, upsampling and deformable convolutions start close to the identity.
        """
        super()._init_weights(module)
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                fan_in, _ = nn.init._calculate_fan_in_and_fan_out(module.weight)
                init.uniform_(module.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, ModulatedDeformConv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, MaSSFormerConvLayer):
            init.kaiming_normal_(module.convolution.weight, a=1)
        elif isinstance(module, MaSSFormerDeformableConvLayer):
            for parameter in module.offset.parameters():
                init.zeros_(parameter)
            # CODEPATH: how new models start; no checkpoint depends on it.
            if self.config.initialization == "identity":
                self._init_identity(module)
        # CODEPATH: how new models start; no checkpoint depends on it.
        elif isinstance(module, MaSSFormerReceptiveFieldBroadening) and self.config.initialization == "identity":
            self._init_branches(module)
        elif isinstance(module, MaSSFormerUpsampleLayer):
            self._init_upsample(module)
        elif isinstance(module, MaSSFormerEdgeGuidedFusion) and module.has_residual:
            init.zeros_(module.normalization.weight)
        elif isinstance(module, MaSSFormerAttention):
            self._init_attention(module, init.xavier_uniform_)
        elif isinstance(module, MaSSFormerTransformerDecoderLayer):
            self._init_decoder_layer(module)

    def _init_upsample(self, module: MaSSFormerUpsampleLayer):
        """
        Initialize the first output channel of every input channel as bilinear interpolation (release), or every
        channel's own output as bilinear interpolation and the rest as 0.
        """
        kernel = torch.tensor([0.25, 0.75, 0.75, 0.25])
        weight = module.convolution.weight
        if not getattr(weight, "_is_hf_initialized", False):
            start = torch.zeros_like(weight)
            # CODEPATH: how new models start; no checkpoint depends on it.
            if self.config.initialization == "identity":
                start.diagonal(dim1=0, dim2=1)[:] = torch.outer(kernel, kernel).to(start)[..., None]
            else:
                nn.init.kaiming_uniform_(start, a=math.sqrt(5))
                start[:, 0] = torch.outer(kernel, kernel).to(start)
            init.copy_(weight, start)

    def _init_identity(self, module: MaSSFormerDeformableConvLayer, first_channel: int = 0):
        """Pass channels from `first_channel` on through the central tap, with modulation sigmoid(2) = 0.88."""
        weight = module.convolution.weight
        bias: Any = module.offset.bias
        if not getattr(weight, "_is_hf_initialized", False):
            start = nn.init.dirac_(torch.zeros_like(weight))
            init.copy_(weight, start.roll(first_channel, dims=1))
        if not getattr(bias, "_is_hf_initialized", False):
            start = torch.zeros_like(bias)
            start[2 * module.num_taps :] = 2
            init.copy_(bias, start)

    def _init_branches(self, module: nn.Module):
        """Let each branch of the receptive field broadening pass its own share of the channels."""
        branches: Any = module.branches
        for index, branch in enumerate(branches):
            self._init_identity(branch, index * branch.convolution.weight.shape[0])

    def _init_attention(self, module: MaSSFormerAttention, initialize: Callable):
        """Initialize projections with the fans of PyTorch's joint projection of queries, keys and values, 1 : 3."""
        for projection in (module.q_proj, module.k_proj, module.v_proj):
            initialize(projection.weight, gain=1 / math.sqrt(2))
            init.zeros_(projection.bias)
        init.zeros_(module.out_proj.bias)

    def _init_decoder_layer(self, module: MaSSFormerTransformerDecoderLayer):
        for attention in (module.cross_attention, module.self_attention):
            self._init_attention(attention, init.xavier_normal_)
            init.xavier_normal_(attention.out_proj.weight)
        init.xavier_normal_(module.mlp.fc1.weight)
        init.xavier_normal_(module.mlp.fc2.weight)


@auto_docstring(
    custom_intro="""
    Transformer decoder with masked attention (Mask2Former): queries read the memories in turn, each within the mask it
    predicted before.
    """
)
class MaSSFormerTransformerDecoder(MaSSFormerPreTrainedModel):
    main_input_name = "memories"
    # Recorded here and not by the whole model, whose hooks would be added to those that some backbones have already.
    _can_record_outputs = {
        "hidden_states": MaSSFormerTransformerDecoderLayer,
        "attentions": OutputRecorder(MaSSFormerAttention, index=1, layer_name="cross_attention"),
    }

    def __init__(self, config: MaSSFormerConfig):
        super().__init__(config)
        self.query_features = nn.Embedding(config.num_queries, config.hidden_size)
        self.query_positions = nn.Embedding(config.num_queries, config.hidden_size)
        self.level_embeddings = nn.Embedding(num_memories(config), config.hidden_size)
        self.layers = nn.ModuleList(MaSSFormerTransformerDecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size)
        self.mask_embedder = MaSSFormerMaskEmbedder(config)
        self.post_init()

    @torch.no_grad()
    def attention_mask(
        self, mask_embeddings: torch.Tensor, level_features: torch.Tensor, piloted_masks: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Compute the additive mask (B, 1, Q, H * W) that hides the positions outside its mask from each query; a query
        with an empty mask sees everything. Resizing commutes with the product over channels, so the masks are computed
        from features at the memory's size and never exist at a larger one. Piloted queries, the last ones, see their
        given masks with noise instead.
        """
        outside = mask_logits_rows(mask_embeddings, level_features).flatten(2)
        outside = outside.sigmoid() < 0.5
        if piloted_masks is not None:
            piloted_outside = ~add_point_noise(piloted_masks).flatten(2)
            outside = torch.cat((outside[:, : self.config.num_queries], piloted_outside), dim=1)
        outside = outside & ~outside.all(dim=-1, keepdim=True)
        return additive_mask(outside, level_features.dtype)

    @torch.no_grad()
    def piloted_masks(self, masks: torch.Tensor, level_features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Resize the masks of piloted queries to the sizes of the memories, keeping every position that they touch."""
        batch_size, num_piloted = masks.shape[:2]
        # As one batch, because pooling accepts no maps without channels.
        maps = masks.flatten(0, 1)[:, None]
        pooled = [F.adaptive_max_pool2d(maps, features.shape[-2:]) for features in level_features]
        return [x[:, 0].unflatten(0, (batch_size, num_piloted)) for x in pooled]

    @torch.no_grad()
    def self_attention_mask(self, masks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """
        Compute the additive mask (B, 1, Q, Q) that hides the piloted queries from the learnable ones, which inference
        has alone, and padding from all.
        """
        num_queries, is_padding = self.config.num_queries, ~masks.flatten(2).any(dim=-1)
        hidden = F.pad(is_padding, (num_queries, 0))[:, None].repeat(1, num_queries + masks.shape[1], 1)
        hidden[:, :num_queries, num_queries:] = True
        return additive_mask(hidden, dtype)

    @torch.no_grad()
    def level_features(self, coarse_features: torch.Tensor) -> list[torch.Tensor]:
        """
        Resize the mask features at a quarter of the image's size to the sizes of the memories, for the attention masks
        (release).
        """
        height, width = coarse_features.shape[-2:]
        return [resize(coarse_features, (height // factor, width // factor)) for factor in (8, 4, 2)]

    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(
        self,
        memories: list[torch.Tensor],
        level_features: list[torch.Tensor],
        piloted: MaSSFormerPilotedQueries | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaSSFormerTransformerDecoderOutput:
        r"""
        memories (`list[torch.Tensor]` of shape `(batch_size, hidden_size, height / s, width / s)`):
            Memories with s = 32, 16, 8. The list is emptied to free them: at 4K they take hundreds of megabytes, and
            the decoder works on a copy.
        level_features (`list[torch.Tensor]` of shape `(batch_size, hidden_size, height / s, width / s)`):
            Mask features at the sizes of the memories.
        piloted (`MaSSFormerPilotedQueries`, *optional*):
            Queries with given masks. They follow the learnable queries in all outputs.
        """
        batch_size, hidden_size = memories[0].shape[:2]
        level_keys, level_memories = [], []
        device, dtype = memories[0].device, memories[0].dtype
        for level_embedding in all_rows(self.level_embeddings, device):
            height, width = memories[0].shape[-2:]
            level_memories.append(memories.pop(0).flatten(2).transpose(1, 2) + level_embedding)
            positions = sine_position_embedding(height, width, hidden_size, device, dtype)
            level_keys.append(level_memories[-1] + positions.flatten(1).T)
        del positions

        # Repeated, not expanded: the first hidden state must not share memory with the parameter.
        hidden_states = all_rows(self.query_features, device).repeat(batch_size, 1, 1)
        query_positions, self_attention_mask = all_rows(self.query_positions, device), None
        piloted_masks: list[torch.Tensor | None] = [None] * len(level_features)
        if piloted is not None:
            hidden_states = torch.cat((hidden_states, piloted.hidden_states), dim=1)
            query_positions = F.pad(query_positions, (0, 0, 0, piloted.masks.shape[1]))
            piloted_masks = [*self.piloted_masks(piloted.masks, level_features)]
            self_attention_mask = self.self_attention_mask(piloted.masks, level_features[0].dtype)
        normalized_states = [self.layernorm(hidden_states)]
        mask_embeddings = [self.mask_embedder(normalized_states[-1])]
        for index, layer in enumerate(self.layers):
            level = index % len(level_memories)
            hidden_states = layer(
                hidden_states,
                query_positions,
                level_keys[level],
                level_memories[level],
                self.attention_mask(mask_embeddings[-1], level_features[level], piloted_masks[level]),
                self_attention_mask,
                **kwargs,
            )
            normalized_states.append(self.layernorm(hidden_states))
            mask_embeddings.append(self.mask_embedder(normalized_states[-1]))
        return MaSSFormerTransformerDecoderOutput(
            last_hidden_state=normalized_states[-1],
            intermediate_hidden_states=tuple(normalized_states),
            mask_embeddings=tuple(mask_embeddings),
        )


def load_pixel_encoder(config: MaSSFormerConfig) -> Any:
    """Build the backbone with the attention implementation of the decoder, where it has attention."""
    backbone_config: Any = config.backbone_config
    # A backbone without attention, such as ResNet, refuses to be built with an attention implementation.
    requested, backbone_config._attn_implementation = backbone_config._attn_implementation, None
    backbone: Any = load_backbone(config)
    if requested is not None and backbone.has_attentions:
        backbone.set_attn_implementation(requested)
    # Swin's last normalization serves its classifier only. A parameter that never gets a gradient halts
    # data-parallel training, and the release's checkpoints do not have it.
    trunk = getattr(backbone, {"swin": "swin", "maskformer-swin": "model"}.get(backbone_config.model_type, ""), None)
    if trunk is not None:
        trunk.layernorm = nn.Identity()
    return backbone


@auto_docstring(custom_intro="Pixel encoder, pixel decoder and transformer decoder, without the class head.")
class MaSSFormerModel(MaSSFormerPreTrainedModel):
    def __init__(self, config: MaSSFormerConfig):
        # Overrides of `from_pretrained` are not validated before.
        config.validate_architecture()
        super().__init__(config)
        self.backbone = load_pixel_encoder(config)
        self.pixel_decoder = MaSSFormerPixelDecoder(
            config, self.backbone.channels, getattr(config.backbone_config, "num_channels", 3)
        )
        self.transformer_decoder = MaSSFormerTransformerDecoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the convolution that reads the image; not every backbone names its own."""
        return next(module for module in self.backbone.modules() if isinstance(module, nn.Conv2d))

    def check_input(self, pixel_values: torch.Tensor):
        height, width = pixel_values.shape[-2:]
        if height < 32 or width < 32 or height % 32 or width % 32:
            raise ValueError(
                f"`pixel_values` must have a height and width that are multiples of 32, got {height} x {width}. "
                "Prepare images with `MaSSFormerImageProcessor`, which pads them."
            )
        norm: Any = self.pixel_decoder.squeeze_excitations[0].normalization
        if isinstance(norm, MaSSFormerBatchNorm) and norm.training and pixel_values.shape[0] == 1:
            raise ValueError(
                "Training needs at least two images per batch and process: the pixel decoder normalizes pooled 1 x 1 "
                "maps over the batch, and one value has no variance. Raise the batch size, convert the model with "
                "`torch.nn.SyncBatchNorm.convert_sync_batchnorm`, or put the normalization layers in eval mode."
            )

    def check_feature_maps(self, pixel_values: torch.Tensor, feature_maps: Sequence[torch.Tensor]):
        height, width = pixel_values.shape[-2:]
        sizes = [tuple(feature_map.shape[-2:]) for feature_map in feature_maps]
        if sizes != [(height // stride, width // stride) for stride in (4, 8, 16, 32)]:
            remedy = "Choose other `out_features` or `out_indices` in `backbone_config`."
            if len(set(sizes)) == 1:
                remedy = (
                    "All its maps have one stride, as in plain vision transformers (ViT, DINOv2, DINOv3-ViT), which "
                    "cannot be used; choose a hierarchical backbone such as ResNet, Swin or ConvNeXt."
                )
            raise ValueError(
                f"The backbone must return feature maps at strides 4, 8, 16 and 32, but for an image of {height} x "
                f"{width} they have sizes {sizes}. {remedy}"
            )

    def choose_bands(self, pixel_values: torch.Tensor) -> list[tuple[int, int]]:
        """
        Choose the bands of rows for the half-resolution part; a single one for gradients and for graphs. Their height
        is a multiple of 16, so that every position of a memory lies within one band.
        """
        height, width = pixel_values.shape[-2] // 2, pixel_values.shape[-1] // 2
        if self.training or torch.is_grad_enabled() or is_tracing(pixel_values):
            return [(0, height)]
        return row_bands(0, height, pixel_values.shape[0] * width * self.config.pixel_decoder_hidden_size, 16)

    def predict_in_bands(
        self,
        pixel_values: torch.Tensor,
        feature_maps: list[torch.Tensor],
        bands: list[tuple[int, int]],
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[MaSSFormerTransformerDecoderOutput, torch.Tensor, torch.Tensor]:
        """
        Compute the decoder's outputs, the mask logits and the edge logits with mask features that only exist in bands
        of rows: they are computed once for the attention masks and once for the logits.
        """
        pixel_decoder, transformer_decoder = self.pixel_decoder, self.transformer_decoder
        memories, body, low_level = pixel_decoder.semantic_branch(feature_maps)
        complete, edge_logits = pixel_decoder.structure_bands(pixel_values, body, low_level, bands)
        del low_level
        stripes = [bands[index : index + STRIPE_BANDS] for index in range(0, len(bands), STRIPE_BANDS)]
        refined = [pixel_decoder.edge_guided_fusion.refine_bands(complete, body, stripe) for stripe in stripes]
        kept = list(refined)
        # CODEPATH: only a fusion that adds the details reads them again.
        if pixel_decoder.edge_guided_fusion.has_residual:
            kept = [complete[:, :, stripe[0][0] : stripe[-1][1]] for stripe in stripes]
        del complete

        # The features have more channels than the maps before them, so their bands have fewer rows.
        row_values = pixel_values.shape[0] * pixel_values.shape[-1] // 2 * self.config.hidden_size
        stripes = [row_bands(stripe[0][0], stripe[-1][1], row_values, 2) for stripe in stripes]

        def level_rows(index: int) -> list[torch.Tensor]:
            features_of_bands = pixel_decoder.mask_feature_bands(refined[index], kept[index], body, stripes[index])
            return transformer_decoder.level_features(torch.cat([halve(x) for x in features_of_bands], dim=2))

        levels = zip(*(level_rows(index) for index in range(len(stripes))), strict=True)
        level_features = [torch.cat(rows, dim=2) for rows in levels]
        decoder_outputs = transformer_decoder(memories, level_features, return_dict=True, **kwargs)

        def rows_of_bands() -> Iterator[tuple[torch.Tensor]]:
            for stripe in stripes:
                for features in pixel_decoder.mask_feature_bands(refined.pop(0), kept.pop(0), body, stripe):
                    yield (mask_logits_rows(decoder_outputs.mask_embeddings[-1], features),)

        (masks_queries_logits,) = join_rows(rows_of_bands(), [band for stripe in stripes for band in stripe])
        return decoder_outputs, masks_queries_logits, edge_logits

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.Tensor,
        output_pixel_features: bool = True,
        piloted: MaSSFormerPilotedQueries | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaSSFormerModelOutput:
        r"""
        output_pixel_features (`bool`, *optional*, defaults to `True`):
            Whether to return the mask features and the memories. If `False`, the mask logits are returned instead;
            inference then computes them in bands of rows, so that the features, several times their size, never exist
            as a whole.
        piloted (`MaSSFormerPilotedQueries`, *optional*):
            Queries with given masks, for training. They follow the learnable queries in all outputs.
        """
        refuse_unknown_inputs(self, kwargs)
        self.check_input(pixel_values)
        pixel_values = pixel_values.to(self.dtype)
        layout = backbone_layout(self.backbone, pixel_values.device)
        backbone_outputs = self.backbone(pixel_values.contiguous(memory_format=layout))
        feature_maps = list(backbone_outputs.feature_maps)
        semantic_maps = getattr(backbone_outputs, "semantic_maps", None)
        # The pixel decoder frees the feature maps one by one.
        del backbone_outputs
        self.check_feature_maps(pixel_values, feature_maps)
        bands = self.choose_bands(pixel_values)
        memories, mask_features, masks_queries_logits = [], None, None
        if piloted is None and not output_pixel_features and len(bands) > 1:
            decoder_outputs, masks_queries_logits, edge_logits = self.predict_in_bands(
                pixel_values, feature_maps, bands, **kwargs
            )
        else:
            memories, mask_features, edge_logits = self.pixel_decoder(pixel_values, feature_maps)
            level_features = self.transformer_decoder.level_features(halve(mask_features))
            decoder_outputs = self.transformer_decoder(
                list(memories), level_features, piloted=piloted, return_dict=True, **kwargs
            )
            if not output_pixel_features:
                masks_queries_logits = mask_logits(decoder_outputs.mask_embeddings[-1], mask_features)
        return MaSSFormerModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            intermediate_hidden_states=decoder_outputs.intermediate_hidden_states,
            mask_embeddings=decoder_outputs.mask_embeddings,
            mask_features=mask_features if output_pixel_features else None,
            masks_queries_logits=masks_queries_logits,
            edge_logits=edge_logits,
            pixel_decoder_hidden_states=tuple(memories) if output_pixel_features else None,
            semantic_maps=semantic_maps,
            hidden_states=decoder_outputs.hidden_states,
            attentions=decoder_outputs.attentions,
        )


@auto_docstring(custom_intro="MaSSFormer for semantic segmentation: a class and a mask per query, and edges.")
class MaSSFormerForSemanticSegmentation(MaSSFormerPreTrainedModel):
    def __init__(self, config: MaSSFormerConfig):
        super().__init__(config)
        self.model = MaSSFormerModel(config)
        self.criterion = MaSSFormerLoss(config)
        self.class_predictor = nn.Linear(config.hidden_size, self.criterion.num_labels + 1)
        # CODEPATH: training choice; no converted checkpoint has them, and inference does not use them.
        num_classifiers = num_memories(config) + 1 if config.pixel_loss_weight else 0
        self.pixel_classifiers = nn.ModuleList(
            nn.Conv2d(config.hidden_size, self.criterion.num_labels, kernel_size=1) for _ in range(num_classifiers)
        )
        # CODEPATH: training choice; no converted checkpoint has them, and inference does not use them.
        if config.mask_piloted:
            self.class_embeddings = nn.Embedding(self.criterion.num_labels, config.hidden_size)
        self.post_init()

    def pixel_logits(self, outputs: MaSSFormerModelOutput) -> list[torch.Tensor]:
        """Classify the pixels of the memories and the mask features; empty without pixel classifiers."""
        memories: Any = outputs.pixel_decoder_hidden_states
        feature_maps = (*memories, outputs.mask_features)
        return [classify(x) for classify, x in zip(self.pixel_classifiers, feature_maps, strict=False)]

    # Nothing to compile: the number of queries varies with the classes of a batch.
    @torch.compiler.disable
    def piloted_queries(self, labels: torch.Tensor) -> MaSSFormerPilotedQueries:
        """Make a query for each class of an image from the embedding of the class, or for some of a random one."""
        num_labels = self.criterion.num_labels
        present, masks = semantic_targets(labels.long(), num_labels, self.config.ignore_index)
        classes = pad_sequence(present, batch_first=True)
        is_noise = torch.rand(classes.shape, device=classes.device) < LABEL_NOISE
        classes = torch.where(is_noise, torch.randint_like(classes, num_labels), classes)
        return MaSSFormerPilotedQueries(self.class_embeddings(classes), pad_sequence(masks, batch_first=True))

    def context_scores(self, pixel_values: torch.Tensor, context_size: int) -> torch.Tensor:
        """
        Compute the logarithms of the scores of images reduced to a longest side of `context_size`, for each class the
        highest within `config.context_reach` positions: near an edge, all classes that meet there are possible.
        """
        height, width = pixel_values.shape[-2:]
        longest = torch.sym_max(height, width)
        longest_reduced = torch.sym_min(longest, context_size)
        # Multiples of 32; with at least two of them, graphs for any size hold for narrow images too.
        size: Any = [
            32 * torch.sym_max(2, (2 * side * longest_reduced + 32 * longest) // (64 * longest))
            for side in (height, width)
        ]
        reduced = F.interpolate(pixel_values.float(), size, mode="bilinear", align_corners=False, antialias=True)
        outputs = self.model(reduced, output_pixel_features=False, return_dict=True)
        scores = log_scores(self.class_predictor(outputs.last_hidden_state), outputs.masks_queries_logits)
        reach = self.config.context_reach
        return F.max_pool2d(scores, 2 * reach + 1, stride=1, padding=reach)

    def join_passes(
        self,
        pixel_values: torch.Tensor,
        class_queries_logits: torch.Tensor,
        masks_queries_logits: torch.Tensor,
        context_size: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return the logits of one query per class, whose mask is the weighted product of the class's scores in both
        passes, relative to the sum of all: inside a region the reduced pass decides, near edges the full-size pass.
        Images up to `context_size` have one pass only.
        """
        excess = torch.sym_max(*pixel_values.shape[-2:]) - context_size
        # A graph for any size reduces all images and gives those that are not larger the weight 0.
        weight = self.config.context_weight * cast(int, torch.sym_max(0, torch.sym_min(1, excess)))
        context = None
        if isinstance(excess, torch.SymInt) or weight:
            context = resize(self.context_scores(pixel_values, context_size), masks_queries_logits.shape[-2:])
        masks = []
        for first, last in self.model.choose_bands(pixel_values):
            scores = log_scores(class_queries_logits, masks_queries_logits[:, :, first:last])
            if context is not None:
                scores = scores + weight * context[:, :, first:last]
            masks.append(scores.softmax(dim=1).logit(eps=1e-6).to(masks_queries_logits.dtype))
        num_labels, batch_size = self.criterion.num_labels, masks_queries_logits.shape[0]
        classes = CERTAIN * torch.eye(num_labels, num_labels + 1, dtype=self.dtype, device=masks_queries_logits.device)
        return classes.expand(batch_size, -1, -1), torch.cat(masks, dim=2)

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        coarse_edges: torch.Tensor | None = None,
        annotated_classes: torch.Tensor | None = None,
        output_auxiliary_logits: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaSSFormerForSemanticSegmentationOutput:
        r"""
        labels (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*):
            Class of each pixel, `config.ignore_index` for pixels without one. If given, the loss is returned.
        coarse_edges (`torch.BoolTensor` of shape `(batch_size,)`, *optional*):
            Images whose labels have unreliable edges: edges are suppressed for all of their classes as for
            `config.pseudo_label_classes` (Eq. 7), and do not train the edge head.
        annotated_classes (`torch.BoolTensor` of shape `(batch_size, num_labels)`, *optional*):
            Classes labelled wherever they occur. Other classes may occur in pixels without a label, so queries that
            predict them there are not told that they see no object.
        output_auxiliary_logits (`bool`, *optional*):
            Whether to return the predictions of the decoder's earlier steps. Defaults to whether `labels` are given.
        """
        refuse_unknown_inputs(self, kwargs)
        if output_auxiliary_logits is None:
            output_auxiliary_logits = labels is not None
        output_pixel_features = output_auxiliary_logits or labels is not None
        piloted = None
        # CODEPATH: training choice; no checkpoint depends on it.
        if self.config.mask_piloted and self.training and labels is not None:
            self.criterion.check_labels(labels, len(pixel_values), *pixel_values.shape[-2:])
            piloted = self.piloted_queries(labels)
        outputs = self.model(pixel_values, output_pixel_features, piloted, return_dict=True, **kwargs)
        class_queries_logits = [self.class_predictor(states) for states in outputs.intermediate_hidden_states]
        mask_embeddings = outputs.mask_embeddings
        piloted_class_logits, piloted_mask_embeddings = [], []
        if piloted is not None:
            class_queries_logits, piloted_class_logits = split_queries(class_queries_logits, self.config.num_queries)
            mask_embeddings, piloted_mask_embeddings = split_queries(mask_embeddings, self.config.num_queries)

        loss, loss_dict = None, None
        if labels is not None:
            losses = self.criterion(
                class_queries_logits,
                mask_embeddings,
                outputs.mask_features,
                outputs.edge_logits,
                labels,
                outputs.semantic_maps,
                self.pixel_logits(outputs),
                coarse_edges,
                annotated_classes,
                piloted_class_logits,
                piloted_mask_embeddings,
            )
            loss = losses.pop("loss")
            loss_dict = {name: value.detach() for name, value in losses.items()}

        auxiliary_logits = None
        if output_auxiliary_logits:
            coarse_features = halve(outputs.mask_features)
            auxiliary_logits = [
                {
                    "class_queries_logits": class_logits,
                    "masks_queries_logits": mask_logits(embeddings, coarse_features),
                }
                for class_logits, embeddings in zip(class_queries_logits[:-1], mask_embeddings[:-1], strict=True)
            ]

        masks_queries_logits = outputs.masks_queries_logits
        if output_pixel_features:
            masks_queries_logits = mask_logits(mask_embeddings[-1], outputs.mask_features)
        final_class_logits = class_queries_logits[-1]
        # CODEPATH: `None` in the release and in converted checkpoints.
        if self.config.context_size is not None and not self.training:
            final_class_logits, masks_queries_logits = self.join_passes(
                pixel_values, final_class_logits, masks_queries_logits, self.config.context_size
            )
        return MaSSFormerForSemanticSegmentationOutput(
            loss=loss,
            class_queries_logits=final_class_logits,
            masks_queries_logits=masks_queries_logits,
            edge_logits=outputs.edge_logits,
            auxiliary_logits=auxiliary_logits,
            semantic_maps=outputs.semantic_maps,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            loss_dict=loss_dict,
        )


__all__ = ["MaSSFormerForSemanticSegmentation", "MaSSFormerModel", "MaSSFormerPreTrainedModel"]
