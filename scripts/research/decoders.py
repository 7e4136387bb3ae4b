"""Build segmentation models that differ only in their decoder: same backbone, same widths, same training."""

import copy
from typing import Any

import torch
import transformers
from ablation import AblatedMaSSFormer, AblationConfig
from torch import nn
from transformers import AutoBackbone, AutoConfig, AutoModelForSemanticSegmentation, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from transformers_massformer import MASS13K_LABELS, MaSSFormerConfig, MaSSFormerForSemanticSegmentation
from transformers_massformer.training.classes import label_names
from transformers_massformer.training.models import NEW_MODEL_FIELDS


NAMES = label_names(MASS13K_LABELS)
SWITCHES = (
    "use_cross_semantic_transmission",
    "use_receptive_field_broadening",
    "use_low_level_structure",
    "use_edge_guided_fusion",
)
# The rows of the paper's Table 4; each adds a module to the row before.
ABLATION = {
    "MaSSFormer, none of the modules": SWITCHES[:0],
    "+ CST": SWITCHES[:1],
    "+ RFB": SWITCHES[:2],
    "+ LSE": SWITCHES[:3],
}
MASSFORMER, AS_FOUND = "MaSSFormer", "MaSSFormer, as found"
# What experiments found better than the release's graph, and the experiments: one change of the release at a time.
EXPERIMENTS: dict[str, dict[str, Any]] = {
    AS_FOUND: NEW_MODEL_FIELDS,
    "MaSSFormer, details added": {"detail_residual": True},
    "MaSSFormer, pixel loss": {"pixel_loss_weight": 2.0},
    "MaSSFormer, identity start": {"initialization": "identity"},
    "MaSSFormer, path around CST": {"cross_semantic_residual": True},
    "MaSSFormer, path around RFB": {"receptive_field_residual": True},
    "MaSSFormer, pooled maps not normalized": {"pooled_batch_norm": False},
    "MaSSFormer, mask-piloted": {"mask_piloted": True},
}
# The rows of Table 4 trained as found; the full model is the last.
ABLATION_AS_FOUND = {f"{name}, as found": switches for name, switches in ABLATION.items()}
DECODERS = (
    AS_FOUND,
    "Mask2Former",
    MASSFORMER,
    "SegFormer",
    "MaskFormer",
    *ABLATION_AS_FOUND,
    *ABLATION,
    *list(EXPERIMENTS)[1:],
)
# Learning rates of decoders that do not learn at the common one: their authors'.
LEARNING_RATES = {"MaskFormer": 1e-4}
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
# The comparisons of the SeMask and MaskFormer papers: with and without semantic layers, masks and pixels. Types of the
# models, and the fields in which they differ from MaSSFormer's. The backbones of the first start from random weights.
SEMANTIC_LAYERS = {
    "Semantic-FPN, Swin": ("semask", {"backbone_config": SWIN}),
    "Semantic-FPN, SeMask-Swin": ("semask", {"backbone_config": SEMASK_SWIN}),
    "MaSSFormer, Swin": ("massformer", {"backbone_config": SWIN}),
    "MaSSFormer, SeMask-Swin": ("massformer", {"backbone_config": SEMASK_SWIN}),
}
CLASSIFICATION = {
    "PerPixelBaseline": ("per_pixel_baseline", {"num_queries": None, "use_transformer_decoder": False}),
    "PerPixelBaseline+": ("per_pixel_baseline", {"num_queries": None, "use_transformer_decoder": True}),
    "MaSSFormer, fixed matching": ("massformer", {"num_queries": len(MASS13K_LABELS), "matching": "fixed"}),
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


def build_mask2former(config: MaSSFormerConfig) -> PreTrainedModel:
    """Build Mask2Former with the widths, queries and points of a MaSSFormer."""
    width = config.hidden_size
    return transformers.Mask2FormerForUniversalSegmentation(
        transformers.Mask2FormerConfig(
            backbone_config=config.to_dict()["backbone_config"],
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
            backbone_config=config.to_dict()["backbone_config"],
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
    model_type, changed = (SEMANTIC_LAYERS | CLASSIFICATION)[name]
    kept = {"hidden_size": config.hidden_size, **NAMES} if model_type == "semask" else config.to_dict()
    fields = {**kept, **copy.deepcopy(changed), "model_type": model_type}
    return AutoModelForSemanticSegmentation.from_config(AutoConfig.for_model(**fields))


def build_ablation(name: str, config: MaSSFormerConfig) -> PreTrainedModel:
    """Build a row of Table 4; only the full MaSSFormer, the last row of the table, learns edges."""
    fields: dict[str, Any] = {**config.to_dict(), "model_type": AblationConfig.model_type, "edge_weight": 0.0}
    if name in ABLATION_AS_FOUND:
        fields |= NEW_MODEL_FIELDS
    switches = (ABLATION | ABLATION_AS_FOUND)[name]
    fields |= {switch: switch in switches for switch in SWITCHES}
    return AblatedMaSSFormer(AblationConfig(**fields))


def build_decoder(name: str, config: MaSSFormerConfig) -> PreTrainedModel:
    """Build one of `DECODERS` or `FORMULATIONS` with the widths of a MaSSFormer."""
    if name == MASSFORMER:
        return MaSSFormerForSemanticSegmentation(config)
    if name in EXPERIMENTS:
        return MaSSFormerForSemanticSegmentation(MaSSFormerConfig(**{**config.to_dict(), **EXPERIMENTS[name]}))
    if name in ABLATION | ABLATION_AS_FOUND:
        return build_ablation(name, config)
    peers = {"Mask2Former": build_mask2former, "MaskFormer": build_maskformer, "SegFormer": build_segformer}
    return peers[name](config) if name in peers else build_formulation(name, config)
