"""Build segmentation models that differ only in their decoder: same backbone, same widths, same training."""

from typing import Any

import torch
import transformers
from ablation import AblatedMaSSFormer, AblationConfig
from torch import nn
from transformers import AutoBackbone, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from transformers_massformer import (
    MASS13K_LABELS,
    MaSSFormerConfig,
    MaSSFormerForSemanticSegmentation,
    PerPixelBaselineConfig,
    PerPixelBaselineForSemanticSegmentation,
    SeMaskConfig,
    SeMaskForSemanticSegmentation,
)
from transformers_massformer.training.classes import label_names


NAMES = label_names(MASS13K_LABELS)
# The rows of the paper's Table 4; each adds a module to the row before.
ABLATION = {
    "MaSSFormer, none of the modules": (),
    "+ CST": ("use_cross_semantic_transmission",),
    "+ RFB": ("use_cross_semantic_transmission", "use_receptive_field_broadening"),
    "+ LSE": ("use_cross_semantic_transmission", "use_receptive_field_broadening", "use_low_level_structure"),
}
SWITCHES = (
    "use_cross_semantic_transmission",
    "use_receptive_field_broadening",
    "use_low_level_structure",
    "use_edge_guided_fusion",
)
MASSFORMER, PEERS = "MaSSFormer", ("Mask2Former", "MaskFormer", "SegFormer")
DECODERS = (MASSFORMER, *PEERS, *ABLATION)
# A Swin small enough to learn from scratch in minutes.
SWIN = {
    "model_type": "swin",
    "embed_dim": 32,
    "depths": [1, 1, 2, 1],
    "num_heads": [1, 2, 4, 8],
    "window_size": 7,
    "drop_path_rate": 0.0,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
SEMASK_SWIN = {**SWIN, "model_type": "semask_swin"}
# The comparisons of the SeMask and MaskFormer papers: with and without semantic layers, masks and pixels.
SEMANTIC_LAYERS = {
    "Semantic-FPN, Swin": ("semask", SWIN),
    "Semantic-FPN, SeMask-Swin": ("semask", SEMASK_SWIN),
    "MaSSFormer, Swin": ("massformer", SWIN),
    "MaSSFormer, SeMask-Swin": ("massformer", SEMASK_SWIN),
}
CLASSIFICATION = {
    "PerPixelBaseline": {"use_transformer_decoder": False},
    "PerPixelBaseline+": {"use_transformer_decoder": True},
    "MaSSFormer, fixed matching": {"matching": "fixed"},
}
FORMULATIONS = (*SEMANTIC_LAYERS, *CLASSIFICATION, MASSFORMER)


class BackboneEncoder(nn.Module):
    """Adapt any backbone to the interface of SegFormer's encoder."""

    def __init__(self, backbone_config: Any):
        super().__init__()
        self.backbone: Any = AutoBackbone.from_config(backbone_config)

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutput:
        feature_maps = self.backbone(pixel_values).feature_maps
        return BaseModelOutput(last_hidden_state=feature_maps[-1], hidden_states=tuple(feature_maps))


def backbone_fields(config: MaSSFormerConfig) -> dict[str, Any]:
    """Return the fields of the backbone's configuration, for another model."""
    backbone_config: Any = config.backbone_config
    return backbone_config.to_dict()


def build_mask2former(config: MaSSFormerConfig) -> PreTrainedModel:
    """Build Mask2Former with the widths, queries and points of a MaSSFormer."""
    width = config.hidden_size
    return transformers.Mask2FormerForUniversalSegmentation(
        transformers.Mask2FormerConfig(
            backbone_config=backbone_fields(config),
            feature_size=width,
            mask_feature_size=width,
            hidden_dim=width,
            encoder_layers=3,
            encoder_feedforward_dim=config.intermediate_size,
            dim_feedforward=config.intermediate_size,
            # This count includes the prediction before the first layer.
            decoder_layers=config.num_hidden_layers + 1,
            num_attention_heads=config.num_attention_heads,
            num_queries=config.num_queries,
            train_num_points=config.train_num_points,
            **NAMES,
        )
    )


def build_maskformer(config: MaSSFormerConfig) -> PreTrainedModel:
    """Build MaskFormer with the widths and queries of a MaSSFormer."""
    width = config.hidden_size
    decoder_config = {
        "model_type": "detr",
        "d_model": width,
        "num_queries": config.num_queries,
        "decoder_layers": config.num_hidden_layers,
        "decoder_ffn_dim": config.intermediate_size,
        "decoder_attention_heads": config.num_attention_heads,
        "encoder_attention_heads": config.num_attention_heads,
    }
    return transformers.MaskFormerForInstanceSegmentation(
        transformers.MaskFormerConfig(
            backbone_config=backbone_fields(config),
            decoder_config=decoder_config,
            fpn_feature_size=width,
            mask_feature_size=width,
            use_auxiliary_loss=True,
            # Needed for the predictions of the earlier layers.
            output_hidden_states=True,
            **NAMES,
        )
    )


def build_segformer(config: MaSSFormerConfig) -> PreTrainedModel:
    """Build SegFormer's head on any backbone, four times as wide as the smallest published one would be here."""
    encoder = BackboneEncoder(config.backbone_config)
    model = transformers.SegformerForSemanticSegmentation(
        transformers.SegformerConfig(
            hidden_sizes=list(encoder.backbone.channels),
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 1, 1],
            decoder_hidden_size=4 * config.hidden_size,
            semantic_loss_ignore_index=config.ignore_index,
            **NAMES,
        )
    )
    # The head reads its feature maps from this attribute.
    model.add_module("segformer", encoder)
    return model


def build_formulation(name: str, config: MaSSFormerConfig) -> PreTrainedModel:
    """Build one of `SEMANTIC_LAYERS` or `CLASSIFICATION` with the widths of a MaSSFormer."""
    fields: dict[str, Any] = config.to_dict()
    if name in SEMANTIC_LAYERS:
        kind, backbone_config = SEMANTIC_LAYERS[name]
        if kind == "semask":
            return SeMaskForSemanticSegmentation(
                SeMaskConfig(backbone_config=dict(backbone_config), hidden_size=config.hidden_size, **NAMES)
            )
        fields["backbone_config"] = dict(backbone_config)
        return MaSSFormerForSemanticSegmentation(MaSSFormerConfig(**fields))
    if name == "MaSSFormer, fixed matching":
        fields |= {"num_queries": len(MASS13K_LABELS), **CLASSIFICATION[name]}
        return MaSSFormerForSemanticSegmentation(MaSSFormerConfig(**fields))
    fields |= {"num_queries": None, "model_type": PerPixelBaselineConfig.model_type, **CLASSIFICATION[name]}
    return PerPixelBaselineForSemanticSegmentation(PerPixelBaselineConfig(**fields))


def starts_from_nothing(name: str) -> bool:
    """Return whether the backbone is trained from scratch."""
    return name in SEMANTIC_LAYERS


def build_decoder(name: str, config: MaSSFormerConfig) -> PreTrainedModel:
    """
    Build one of `DECODERS` on the configuration's backbone, or one of `FORMULATIONS`.

    Args:
        name (`str`): Name of the decoder or formulation.
        config ([`MaSSFormerConfig`]): Configuration of the full MaSSFormer; the others take their widths from it.
    """
    if name in SEMANTIC_LAYERS or name in CLASSIFICATION:
        return build_formulation(name, config)
    if name in PEERS:
        return {"Mask2Former": build_mask2former, "MaskFormer": build_maskformer, "SegFormer": build_segformer}[name](
            config
        )
    if name == MASSFORMER:
        return MaSSFormerForSemanticSegmentation(config)
    # Only the last row of the table learns edges.
    fields: dict[str, Any] = {**config.to_dict(), "model_type": AblationConfig.model_type, "edge_weight": 0.0}
    fields |= {switch: switch in ABLATION[name] for switch in SWITCHES}
    return AblatedMaSSFormer(AblationConfig(**fields))
