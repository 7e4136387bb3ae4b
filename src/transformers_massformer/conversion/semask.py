"""Convert the authors' SeMask-FPN checkpoints: names, shapes, and settings that they do not record."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from ..models.configuration_semask_swin import STAGES, SeMaskConfig
from ..models.image_processing_semask import SeMaskImageProcessor
from ..models.modeling_semask_swin import SeMaskForSemanticSegmentation
from .checkpoints import load_checkpoint
from .massformer import refuse_overwriting, save_converted, split_projections


logger = logging.get_logger(__name__)

SEMASK_VARIANTS: dict[str, dict[str, Any]] = {
    "semask-swin-t": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "semask-swin-s": {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "semask-swin-b": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12},
    "semask-swin-l": {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12},
}
# Models of these widths for more classes than Cityscapes have global attention in the last two stages (release).
GLOBAL_WIDTHS, CITYSCAPES_LABELS = (96, 192), 19
# Weights of other heads, and buffers that are computed.
UNUSED = re.compile(r"relative_position_index$|^auxiliary_head\.|^data_preprocessor\.")

# Applied in this order, each to the result of the previous one.
RENAMES = [
    (r"^backbone\.patch_embed\.proj\.", "backbone.swin.embeddings.patch_embeddings.projection."),
    (r"^backbone\.patch_embed\.norm\.", "backbone.swin.embeddings.norm."),
    (r"^backbone\.norm(\d)\.", lambda m: f"backbone.hidden_states_norms.stage{int(m[1]) + 1}."),
    (r"^backbone\.layers\.", "backbone.swin.encoder.layers."),
    (r"\.semantic_layer\.norm1\.", ".semantic_layer.layernorm."),
    (r"\.semantic_layer\.class_injection\.", ".semantic_layer.blocks."),
    (r"\.mlp_cls_q\.", ".q_proj."),
    (r"\.mlp_cls_k\.", ".k_proj."),
    (r"\.mlp_v\.", ".v_proj."),
    (r"\.mlp_res\.", ".o_proj."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (
        r"\.attn\.relative_position_bias_table$",
        ".attention.relative_position_bias.relative_position_bias_table",
    ),
    (r"\.attn\.qkv\.", ".attention.in_proj_"),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"^decode_head\.conv_seg\.", "head.classifier."),
    # In the release, upsampling layers between the convolutions of a branch are counted too.
    (r"^decode_head\.scale_heads\.(\d)\.(\d)\.", lambda m: f"head.branches.{m[1]}.layers.{int(m[2]) // 2}."),
    (r"^(head\..*)\.conv\.", r"\1.convolution."),
    (r"^(head\..*)\.bn\.", r"\1.normalization."),
]


def convert_semask_state_dict(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Convert the names of the weights of a release SeMask-FPN of any shape.

    Args:
        state_dict (`dict[str, torch.Tensor]`): Weights by the release's names.

    Returns:
        `dict[str, torch.Tensor]`: Weights by the names of [`SeMaskForSemanticSegmentation`]. Constant buffers are left
        out.
    """
    converted: dict[str, torch.Tensor] = {}
    for release_name, value in state_dict.items():
        name = release_name.removeprefix("module.")
        if UNUSED.search(name):
            continue
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        converted.update(split_projections(name, value))
    return converted


def default_semantic_attention(embed_dim: int, num_labels: int) -> list[str]:
    """Return the range of attention in each stage by the release's rule."""
    is_global = embed_dim in GLOBAL_WIDTHS and num_labels > CITYSCAPES_LABELS
    return ["window", "window", *(["global" if is_global else "window"] * 2)]


def semask_variant_config(
    variant: str, num_labels: int = 7, semantic_attention: Sequence[str] | None = None, **overrides: Any
) -> SeMaskConfig:
    """
    Create the configuration of a published SeMask-FPN.

    Args:
        variant (`str`): `"semask-swin-t"`, `"semask-swin-s"`, `"semask-swin-b"` or `"semask-swin-l"`.
        num_labels (`int`, *optional*, defaults to 7): Number of classes.
        semantic_attention (`Sequence[str]`, *optional*): See [`SeMaskSwinConfig`]; defaults to the release's rule.
        overrides: Other fields of [`SeMaskConfig`]; those in `backbone_config` replace single fields of it.

    Raises:
        ValueError: If the variant is unknown, or the fields do not fit.
    """
    if variant not in SEMASK_VARIANTS:
        raise ValueError(f"Unknown variant {variant!r}; choose one of {', '.join(SEMASK_VARIANTS)}.")
    swin = SEMASK_VARIANTS[variant]
    backbone_config = {
        "model_type": "semask_swin",
        **swin,
        "out_features": STAGES,
        "num_semantic_labels": num_labels,
        "semantic_attention": list(semantic_attention or default_semantic_attention(swin["embed_dim"], num_labels)),
        **overrides.pop("backbone_config", {}),
    }
    # The names of MaSS13K's classes are the default.
    labels: dict[str, Any] = {} if num_labels == SeMaskConfig().num_labels else {"num_labels": num_labels}
    return SeMaskConfig(backbone_config=backbone_config, **labels, **overrides)


def shapes_of(converted: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Derive fields of the configuration from the weights: classes, widths, windows and depth of semantic layers."""
    prefix = "backbone.swin.encoder.layers."
    fields: dict[str, Any] = {"backbone_config": {}}
    classifier = converted.get("head.classifier.weight")
    if classifier is not None:
        fields.update(num_labels=classifier.shape[0], hidden_size=classifier.shape[1])
    query = converted.get(f"{prefix}0.semantic_layer.blocks.0.q_proj.weight")
    if query is not None:
        fields["backbone_config"]["num_semantic_labels"] = query.shape[0]
    table = converted.get(f"{prefix}0.blocks.0.attention.relative_position_bias.relative_position_bias_table")
    if table is not None:
        fields["backbone_config"]["window_size"] = (round(table.shape[0] ** 0.5) + 1) // 2
    numbers = [
        re.match(rf"{re.escape(prefix)}(\d)\.semantic_layer\.blocks\.(\d+)\.gamma$", name) for name in converted
    ]
    places = [(int(match[1]), int(match[2])) for match in numbers if match]
    depths = [1 + max((block for stage, block in places if stage == index), default=0) for index in range(len(STAGES))]
    fields["backbone_config"]["semantic_depths"] = depths
    return fields


def convert_semask_checkpoint(
    checkpoint: str | Path,
    variant: str,
    output: str | Path,
    overwrite: bool = False,
    semantic_attention: Sequence[str] | None = None,
) -> Path:
    """
    Convert one of the authors' SeMask-FPN checkpoints to a folder that `from_pretrained` loads.

    Args:
        checkpoint (`str` or `Path`): The authors' file, `.pth` or `.safetensors`.
        variant (`str`): `"semask-swin-t"`, `"semask-swin-s"`, `"semask-swin-b"` or `"semask-swin-l"`.
        output (`str` or `Path`): The folder to write.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to replace weights already in the folder.
        semantic_attention (`Sequence[str]`, *optional*):
            For each stage `"window"` or `"global"`, which checkpoints do not record. Defaults to the release's rule.

    Returns:
        `Path`: The folder.

    Raises:
        FileExistsError: If the folder already contains weights and `overwrite` is false.
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the variant is unknown, the checkpoint cannot be read safely, or its weights do not fit.
    """
    output = Path(output)
    semask_variant_config(variant, semantic_attention=semantic_attention)
    refuse_overwriting(output, overwrite)
    converted = convert_semask_state_dict(load_checkpoint(checkpoint))
    config = semask_variant_config(variant, semantic_attention=semantic_attention, **shapes_of(converted))
    model = SeMaskForSemanticSegmentation(config)
    return save_converted(model, converted, SeMaskImageProcessor(num_labels=len(config.id2label or ())), output)
