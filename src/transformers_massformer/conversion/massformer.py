"""Convert the authors' MaSSFormer checkpoints: names, layouts and checks."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from ..models.configuration_massformer import MASS13K_LABELS
from ..models.image_processing_massformer import MaSSFormerImageProcessor
from ..models.modeling_massformer import MaSSFormerForSemanticSegmentation
from .checkpoints import load_checkpoint
from .variants import VARIANTS, variant_config


logger = logging.get_logger(__name__)

# Weights that older code saved but never used, and buffers that are computed.
UNUSED = re.compile(
    r"decode_head\.pixel_decoder\.pixel_decoder\.(LSE\.sep|out\.4)\."
    r"|^data_preprocessor\."
    r"|relative_position_index$"
)

SWIN_BIAS_TABLE = (
    "model.backbone.swin.encoder.layers.0.blocks.0.attention.relative_position_bias.relative_position_bias_table"
)

# Applied in this order, each to the result of the previous one.
RENAMES = [
    # ResNet, named as in torchvision
    (r"^backbone\.conv1\.", "model.backbone.embedder.embedder.convolution."),
    (r"^backbone\.bn1\.", "model.backbone.embedder.embedder.normalization."),
    (r"^backbone\.layer(\d)\.(\d+)\.", lambda m: f"model.backbone.encoder.stages.{int(m[1]) - 1}.layers.{m[2]}."),
    (r"(stages\.\d\.layers\.\d+)\.conv(\d)\.", lambda m: f"{m[1]}.layer.{int(m[2]) - 1}.convolution."),
    (r"(stages\.\d\.layers\.\d+)\.bn(\d)\.", lambda m: f"{m[1]}.layer.{int(m[2]) - 1}.normalization."),
    (r"(stages\.\d\.layers\.\d+)\.downsample\.0\.", r"\1.shortcut.convolution."),
    (r"(stages\.\d\.layers\.\d+)\.downsample\.1\.", r"\1.shortcut.normalization."),
    # Swin, named as in mmdetection
    (r"^backbone\.norm(\d)\.", lambda m: f"model.backbone.hidden_states_norms.stage{int(m[1]) + 1}."),
    (r"^backbone\.patch_embed\.projection\.", "model.backbone.swin.embeddings.patch_embeddings.projection."),
    (r"^backbone\.patch_embed\.norm\.", "model.backbone.swin.embeddings.norm."),
    (r"^backbone\.stages\.", "model.backbone.swin.encoder.layers."),
    (
        r"\.attn\.w_msa\.relative_position_bias_table$",
        ".attention.relative_position_bias.relative_position_bias_table",
    ),
    (r"(swin\..*)\.attn\.w_msa\.qkv\.", r"\1.attention.in_proj_"),
    (r"(swin\..*)\.attn\.w_msa\.proj\.", r"\1.attention.o_proj."),
    (r"(swin\..*)\.norm1\.", r"\1.layernorm_before."),
    (r"(swin\..*)\.norm2\.", r"\1.layernorm_after."),
    (r"(swin\..*)\.ffn\.layers\.", r"\1.mlp.layers."),
    # Pixel decoder
    (r"^decode_head\.pixel_decoder\.pixel_decoder\.", "model.pixel_decoder."),
    (r"\.in_projections\.", ".lateral_projections."),
    (r"\.conv_avg\.", ".CST.context_projection."),
    (r"\.SEB\.(\d)\.mlp\.0\.mlp\.0\.", lambda m: f".squeeze_excitations.{3 - int(m[1])}.reduce."),
    (r"\.SEB\.(\d)\.mlp\.0\.mlp\.1\.", lambda m: f".squeeze_excitations.{3 - int(m[1])}.normalization."),
    (r"\.SEB\.(\d)\.mlp\.0\.mlp\.3\.", lambda m: f".squeeze_excitations.{3 - int(m[1])}.expand."),
    (r"\.CST\.dcn1\.up_sample\.", ".CST.semantic_upsample.convolution."),
    (r"\.CST\.dcn1\.up_bn\.", ".CST.semantic_upsample.normalization."),
    (r"\.CST\.dcn2\.up_sample\.", ".CST.detail_upsample.convolution."),
    (r"\.CST\.dcn2\.up_bn\.", ".CST.detail_upsample.normalization."),
    (r"\.CST\.dcn1\.", ".CST.semantic_convolution."),
    (r"\.CST\.dcn2\.", ".CST.detail_convolution."),
    (r"\.CST\.cross_self_attn\.cross_attn\.attn\.", ".CST.attention.detail_attention."),
    (r"\.CST\.cross_self_attn\.self_attn\.attn\.", ".CST.attention.self_attention."),
    (r"\.CST\.cross_self_attn\.ffn1\.layers\.", ".CST.attention.detail_mlp.layers."),
    (r"\.CST\.cross_self_attn\.ffn2\.layers\.", ".CST.attention.self_mlp.layers."),
    (r"\.CST\.", ".cross_semantic_transmission."),
    (r"\.RFB\.deformaspp\.", ".RFB.branches."),
    (r"\.RFB\.conv1\.", ".RFB.projection."),
    (r"\.RFB\.bn\.", ".RFB.projection_normalization."),
    (r"\.RFB\.upconv\.", ".RFB.upsample."),
    (r"\.RFB\.bn2\.", ".RFB.upsample_normalization."),
    (r"\.RFB\.", ".receptive_field_broadening."),
    (r"\.LSE\.cbn1\.", ".LSE.pointwise."),
    (r"\.LSE\.dcn3\.", ".LSE.deformable."),
    (r"\.LSE\.conv1\.", ".LSE.pointwise_attention.convolution."),
    (r"\.LSE\.conv2\.", ".LSE.deformable_attention.convolution."),
    (r"\.LSE\.cbn2\.", ".LSE.projection."),
    (r"\.LSE\.", ".low_level_structure."),
    (r"\.edge_conv\.0\.", ".edge_head.projection."),
    (r"\.edge_conv\.1\.", ".edge_head.classifier."),
    (r"\.edge_rec\.conv1\.", ".edge_rec.reduce."),
    (r"\.edge_rec\.conv2\.", ".edge_rec.expand."),
    (r"\.edge_rec\.dcn\.", ".edge_rec.deformable."),
    (r"\.edge_rec\.norm\.", ".edge_rec.normalization."),
    (r"\.edge_rec\.", ".edge_guided_fusion."),
    (r"\.dcn_offset\.", ".offset."),
    (r"\.dcn\.weight$", ".convolution.weight"),
    (r"\.dcn_bn\.", ".normalization."),
    (r"^model\.pixel_decoder\.out\.0\.", "model.pixel_decoder.mask_projection."),
    (r"^model\.pixel_decoder\.out\.(\d)\.", lambda m: f"model.pixel_decoder.memory_projections.{int(m[1]) - 1}."),
    (r"^(model\.pixel_decoder\..*)\.conv\.weight$", r"\1.convolution.weight"),
    (r"^(model\.pixel_decoder\..*)\.bn\.", r"\1.normalization."),
    # Transformer decoder and heads
    (r"^decode_head\.query_feat\.", "model.transformer_decoder.query_features."),
    (r"^decode_head\.query_embed\.", "model.transformer_decoder.query_positions."),
    (r"^decode_head\.level_embed\.", "model.transformer_decoder.level_embeddings."),
    (r"^decode_head\.cls_embed\.", "class_predictor."),
    (
        r"^decode_head\.mask_embed\.(\d)\.",
        lambda m: f"model.transformer_decoder.mask_embedder.fc{int(m[1]) // 2 + 1}.",
    ),
    (r"^decode_head\.transformer_decoder\.post_norm\.", "model.transformer_decoder.layernorm."),
    (r"^decode_head\.transformer_decoder\.", "model.transformer_decoder."),
    (r"(decoder\.layers\.\d+)\.cross_attn\.attn\.", r"\1.cross_attention."),
    (r"(decoder\.layers\.\d+)\.self_attn\.attn\.", r"\1.self_attention."),
    (r"(decoder\.layers\.\d+)\.ffn\.layers\.", r"\1.mlp.layers."),
    (r"(decoder\.layers\.\d+)\.norms\.0\.", r"\1.cross_attention_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norms\.1\.", r"\1.self_attention_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norms\.2\.", r"\1.final_layer_norm."),
    (r"mlp\.layers\.0\.0\.", "mlp.fc1."),
    (r"mlp\.layers\.1\.", "mlp.fc2."),
]


def rename(name: str) -> str:
    """Return the name of a release weight in this package."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def split_projections(name: str, value: torch.Tensor) -> Iterable[tuple[str, torch.Tensor]]:
    """Split a joint projection of queries, keys and values into three; return other weights unchanged."""
    match = re.fullmatch(r"(.*)\.in_proj_(weight|bias)", name)
    if match is None:
        return [(name, value)]
    prefix, kind = match.groups()
    targets = ("q_proj", "k_proj", "v_proj")
    return [(f"{prefix}.{target}.{kind}", part.clone()) for target, part in zip(targets, value.chunk(3), strict=True)]


def reorder_patch_merging(value: torch.Tensor) -> torch.Tensor:
    """
    Reorder the inputs of patch merging, which reads 2 x 2 neighbors: mmdetection orders them by channel, then row,
    then column; transformers by column, then row, then channel.
    """
    merged = value.unflatten(-1, (-1, 2, 2)).transpose(-1, -2)
    return merged.movedim(-3, -1).flatten(-3).contiguous()


def convert_massformer_state_dict(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Convert the names and layout of the release's weights, of any width.

    Args:
        state_dict (`dict[str, torch.Tensor]`): Weights by the release's names.

    Returns:
        `dict[str, torch.Tensor]`: Weights by the names of [`MaSSFormerForSemanticSegmentation`]. Weights that older
        code saved but never used are left out and listed in a warning.
    """
    unused = [name for name in state_dict if UNUSED.search(name)]
    if unused:
        logger.warning(f"Leaving out weights that the model does not use: {', '.join(unused)}.")
    converted = {}
    for release_name, value in state_dict.items():
        if release_name in unused:
            continue
        name = rename(release_name.removeprefix("module."))
        if re.search(r"encoder\.layers\.\d\.downsample\.(reduction|norm)\.", name):
            value = reorder_patch_merging(value)
        converted.update(split_projections(name, value))
    return converted


def check_weights(converted: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]):
    """Raise a ValueError that lists every weight that is missing, unknown or has the wrong shape."""
    missing = sorted(expected.keys() - converted.keys())
    unknown = sorted(converted.keys() - expected.keys())
    misshapen = [
        f"{name} is {tuple(converted[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & converted.keys())
        if converted[name].shape != expected[name].shape
    ]
    problems = [
        f"{title} ({len(names)}): {', '.join(names)}"
        for title, names in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise ValueError(
            "The checkpoint does not fit the model. Is it the right variant? Weights, by the names they have here, "
            + "; ".join(problems)
        )


def refuse_overwriting(output: Path, overwrite: bool):
    """Raise a FileExistsError if the folder contains weights that must not be replaced."""
    if (output / "model.safetensors").exists() and not overwrite:
        raise FileExistsError(f"{output} already holds a model. Choose another folder or allow overwriting it.")


def config_overrides(converted: dict[str, torch.Tensor], variant: str) -> dict:
    """Derive the fields that the variant leaves open from the weights: classes, queries and Swin's window."""
    overrides = {}
    if "class_predictor.weight" in converted:
        num_labels = converted["class_predictor.weight"].shape[0] - 1
        if num_labels != len(MASS13K_LABELS):
            overrides["num_labels"] = num_labels
    if "model.transformer_decoder.query_features.weight" in converted:
        overrides["num_queries"] = converted["model.transformer_decoder.query_features.weight"].shape[0]
    table = converted.get(SWIN_BIAS_TABLE)
    if table is not None and "window_size" in VARIANTS[variant]["backbone_config"]:
        window_size = (round(table.shape[0] ** 0.5) + 1) // 2
        overrides["backbone_config"] = {**VARIANTS[variant]["backbone_config"], "window_size": window_size}
    return overrides


def save_converted(model: PreTrainedModel, weights: dict[str, torch.Tensor], processor: Any, output: Path) -> Path:
    """Load converted weights into a model, save it with its image processor, and return the folder."""
    check_weights(weights, model.state_dict())
    model.load_state_dict(weights)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    return output


def convert_massformer_checkpoint(
    checkpoint: str | Path, variant: str, output: str | Path, overwrite: bool = False
) -> Path:
    """
    Convert one of the authors' checkpoints to a folder that `from_pretrained` loads: safetensors, config and image
    processor.

    Args:
        checkpoint (`str` or `Path`): The authors' file, `.pth` or `.safetensors`.
        variant (`str`): `"r50"`, `"r18-lite"`, `"swin-t"` or `"swin-b"`.
        output (`str` or `Path`): The folder to write.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to replace weights already in the folder.

    Returns:
        `Path`: The folder.

    Raises:
        FileExistsError: If the folder already contains weights and `overwrite` is false.
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the variant is unknown, the checkpoint cannot be read safely, or its weights do not fit.
    """
    output = Path(output)
    variant_config(variant)
    refuse_overwriting(output, overwrite)
    converted = convert_massformer_state_dict(load_checkpoint(checkpoint))
    config = variant_config(variant, **config_overrides(converted, variant))
    model = MaSSFormerForSemanticSegmentation(config)
    return save_converted(model, converted, MaSSFormerImageProcessor(num_labels=model.criterion.num_labels), output)
