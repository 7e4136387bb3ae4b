"""Configurations of the four published models."""

from typing import Any

from ..models.configuration_massformer import MaSSFormerConfig


STAGES = ["stage1", "stage2", "stage3", "stage4"]

# MaSSFormer-Lite: half of R50's widths, except for the cross-semantic feed-forward and the edge head.
LITE_WIDTHS = {"pixel_decoder_hidden_size": 64, "hidden_size": 128, "intermediate_size": 1024}

VARIANTS: dict[str, dict[str, Any]] = {
    "r50": {"backbone_config": {"model_type": "resnet", "out_features": STAGES}},
    "r18-lite": {
        "backbone_config": {
            "model_type": "resnet",
            "layer_type": "basic",
            "depths": [2, 2, 2, 2],
            "hidden_sizes": [64, 128, 256, 512],
            "out_features": STAGES,
        },
        **LITE_WIDTHS,
    },
    "swin-t": {
        "backbone_config": {
            "model_type": "swin",
            "embed_dim": 96,
            "depths": [2, 2, 6, 2],
            "num_heads": [3, 6, 12, 24],
            "window_size": 7,
            "drop_path_rate": 0.3,
            "out_features": STAGES,
        }
    },
    "swin-b": {
        "backbone_config": {
            "model_type": "swin",
            "embed_dim": 128,
            "depths": [2, 2, 18, 2],
            "num_heads": [4, 8, 16, 32],
            "window_size": 12,
            "drop_path_rate": 0.3,
            "out_features": STAGES,
        }
    },
}


def variant_config(variant: str, **overrides) -> MaSSFormerConfig:
    """
    Create the configuration of a published model.

    Args:
        variant (`str`): `"r50"`, `"r18-lite"`, `"swin-t"` or `"swin-b"`.
        overrides: Other fields of [`MaSSFormerConfig`].

    Returns:
        [`MaSSFormerConfig`]

    Raises:
        ValueError: If the variant is unknown.
    """
    if variant not in VARIANTS:
        raise ValueError(f"Unknown variant {variant!r}; choose one of {', '.join(VARIANTS)}.")
    return MaSSFormerConfig(**{**VARIANTS[variant], **overrides})
