"""The ablation of the paper's Table 4: MaSSFormer with some of its modules replaced by plain ones."""

from collections.abc import Iterator
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from transformers_massformer import MaSSFormerConfig, MaSSFormerForSemanticSegmentation
from transformers_massformer.models.modeling_massformer import MaSSFormerConvLayer, resize, upsample_rows


@strict
class AblationConfig(MaSSFormerConfig):
    """[`MaSSFormerConfig`] with a switch for each module of Table 4."""

    model_type = "massformer_ablation"

    # CST. Off: the top-down step of a feature pyramid, without the global context.
    use_cross_semantic_transmission: bool = True
    # RFB. Off: one 3x3 convolution at stride 8, then bilinear upsampling.
    use_receptive_field_broadening: bool = True
    # LSE. Off: the stride-4 map is upsampled to stride 2, and the image is not read again.
    use_low_level_structure: bool = True
    # EGF. Off: the two branches are added. The edge head stays, so that outputs keep their shapes; `edge_weight=0`
    # removes its supervision too, as in row 4 of the table.
    use_edge_guided_fusion: bool = True


class TopDownStep(nn.Module):
    """Replacement for CST: the top-down step of a feature pyramid."""

    def __init__(self, config: MaSSFormerConfig):
        super().__init__()
        hidden_size = config.pixel_decoder_hidden_size
        self.semantic_convolution = MaSSFormerConvLayer(config, hidden_size, hidden_size, config.deform_kernel_size)
        self.detail_convolution = MaSSFormerConvLayer(config, hidden_size, hidden_size, config.deform_kernel_size)

    def forward(
        self, semantic: torch.Tensor, detail: torch.Tensor, deepest_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        height, width = detail.shape[-2:]
        semantic = self.semantic_convolution(semantic)
        detail = self.detail_convolution(detail + resize(semantic, (height, width)))
        return semantic, detail, resize(detail, (2 * height, 2 * width))


class PlainContext(nn.Module):
    """Replacement for RFB: one 3x3 convolution and bilinear upsampling by 2."""

    def __init__(self, config: MaSSFormerConfig):
        super().__init__()
        hidden_size = config.pixel_decoder_hidden_size
        self.convolution = MaSSFormerConvLayer(config, hidden_size, hidden_size, config.deform_kernel_size)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = hidden_states.shape[-2:]
        hidden_states = self.convolution(hidden_states)
        return hidden_states, resize(hidden_states, (2 * height, 2 * width))


class PlainDetail(nn.Module):
    """Replacement for LSE: the stride-4 map at stride 2."""

    def forward(self, pixel_values: torch.Tensor, feature_map: torch.Tensor) -> torch.Tensor:
        return resize(feature_map, (pixel_values.shape[-2] // 2, pixel_values.shape[-1] // 2))

    def forward_bands(
        self, pixel_values: torch.Tensor, feature_map: torch.Tensor, bands: list[tuple[int, int]]
    ) -> Iterator[torch.Tensor]:
        return (upsample_rows(feature_map, first, last) for first, last in bands)


class PlainFusion(nn.Module):
    """Replacement for EGF: the sum of the two branches, which is also what the computation in bands keeps."""

    has_residual = False

    def gate(self, detail: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        return detail + body

    def kept(self, detail: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        return self.gate(detail, body)

    def merge(self, refined: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        return refined

    def forward(self, detail: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        return self.gate(detail, body)

    def refine_bands(self, kept: torch.Tensor, *inputs: Any) -> torch.Tensor:
        bands = inputs[-1]
        return kept[:, :, bands[0][0] : bands[-1][1]]


class AblatedMaSSFormer(MaSSFormerForSemanticSegmentation):
    """MaSSFormer with the modules that its configuration switches off replaced."""

    config: AblationConfig  # ty: ignore[incompatible-mutable-override]

    def __init__(self, config: AblationConfig):
        super().__init__(config)
        decoder: Any = self.model.pixel_decoder
        if not config.use_cross_semantic_transmission:
            decoder.cross_semantic_transmission = TopDownStep(config)
        if not config.use_receptive_field_broadening:
            decoder.receptive_field_broadening = PlainContext(config)
        if not config.use_low_level_structure:
            decoder.low_level_structure = PlainDetail()
        if not config.use_edge_guided_fusion:
            decoder.edge_guided_fusion = PlainFusion()
        self.post_init()
