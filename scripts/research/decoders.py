"""Segmentation models that differ in their decoder alone: one backbone, one size of things, one way to train them."""

from typing import Any

import torch
import transformers
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
# The rows of the paper's Table 4: each adds a module to the one before.
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
# A Swin small enough to learn something from nothing in minutes.
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
# What the papers of SeMask and MaskFormer compare: with and without semantic layers, masks and pixels.
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
    """Any backbone in the place of SegFormer's encoder."""

    def __init__(self, backbone_config: Any):
        super().__init__()
        self.backbone: Any = AutoBackbone.from_config(backbone_config)

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutput:
        feature_maps = self.backbone(pixel_values).feature_maps
        return BaseModelOutput(last_hidden_state=feature_maps[-1], hidden_states=tuple(feature_maps))


def backbone_fields(config: MaSSFormerConfig) -> dict[str, Any]:
    """The configuration of the backbone, for another model."""
    backbone_config: Any = config.backbone_config
    return backbone_config.to_dict()


def build_mask2former(config: MaSSFormerConfig) -> PreTrainedModel:
    """Mask2Former with the widths, queries and points of a MaSSFormer."""
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
            # Its count includes the prediction before the first layer.
            decoder_layers=config.num_hidden_layers + 1,
            num_attention_heads=config.num_attention_heads,
            num_queries=config.num_queries,
            train_num_points=config.train_num_points,
            **NAMES,
        )
    )


def build_maskformer(config: MaSSFormerConfig) -> PreTrainedModel:
    """MaskFormer with the widths and queries of a MaSSFormer."""
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
            # Without them it cannot tell its earlier layers' predictions.
            output_hidden_states=True,
            **NAMES,
        )
    )


def build_segformer(config: MaSSFormerConfig) -> PreTrainedModel:
    """SegFormer's head, four times as wide as its published smallest would be here, on any backbone."""
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
    # What gives the head its feature maps.
    model.add_module("segformer", encoder)
    return model


def build_formulation(name: str, config: MaSSFormerConfig) -> PreTrainedModel:
    """One of `SEMANTIC_LAYERS` or `CLASSIFICATION`, with the widths of a MaSSFormer."""
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
    """Whether there are no weights to start the backbone from."""
    return name in SEMANTIC_LAYERS


def build_decoder(name: str, config: MaSSFormerConfig) -> PreTrainedModel:
    """
    One of `DECODERS` on the configuration's backbone, or of `FORMULATIONS`.

    Args:
        name (`str`): Which.
        config ([`MaSSFormerConfig`]): Of the full MaSSFormer; the others take their widths from it.
    """
    if name in SEMANTIC_LAYERS or name in CLASSIFICATION:
        return build_formulation(name, config)
    if name in PEERS:
        return {"Mask2Former": build_mask2former, "MaskFormer": build_maskformer, "SegFormer": build_segformer}[name](
            config
        )
    switched_on = ABLATION.get(name, SWITCHES)
    fields: dict[str, Any] = {**config.to_dict(), **{switch: switch in switched_on for switch in SWITCHES}}
    if name in ABLATION:
        # Only the last row of the table learns edges.
        fields["edge_weight"] = 0.0
    return MaSSFormerForSemanticSegmentation(MaSSFormerConfig(**fields))
