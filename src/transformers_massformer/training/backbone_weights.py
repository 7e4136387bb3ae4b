"""Load pretrained weights into the backbone of a model."""

import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoBackbone, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ..conversion.checkpoints import load_checkpoint
from ..conversion.massformer import convert_massformer_state_dict
from .parameters import backbone_of


logger = logging.get_logger(__name__)

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
# Prefixes of backbone weights in checkpoints.
PREFIXES = ("module.", "model.", "backbone.", "_backbone.", "encoder.", "resnet.", "swin.")
# Backbone weights that classifiers lack; they keep their values.
OWN = re.compile(r"(^|\.)(hidden_states_norms|semantic_layer)\.|num_batches_tracked$")
# Older weight names of Swin in transformers checkpoints.
SWIN_RENAMES = [
    (r"\.attention\.self\.(query|key|value)\.", lambda m: f".attention.{m[1][0]}_proj."),
    (
        r"\.attention\.self\.relative_position_bias_table$",
        ".attention.relative_position_bias.relative_position_bias_table",
    ),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
]
BIAS_TABLE = "relative_position_bias_table"
# Stage and position within the stage, in the name of a timm block.
BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.(\d+)\.")
# From the names of the original EfficientNet-PyTorch to timm's. Blocks of the first stage have no expansion.
EFFICIENTNET_RENAMES = [
    (r"^_conv_stem\.", "conv_stem."),
    (r"^_bn0\.", "bn1."),
    (r"^(blocks\.0\.\d+)\._depthwise_conv\.", r"\1.conv_dw."),
    (r"^(blocks\.0\.\d+)\._project_conv\.", r"\1.conv_pw."),
    (r"^(blocks\.0\.\d+)\._bn([12])\.", r"\1.bn\2."),
    (r"^(blocks\.\d+\.\d+)\._expand_conv\.", r"\1.conv_pw."),
    (r"^(blocks\.\d+\.\d+)\._depthwise_conv\.", r"\1.conv_dw."),
    (r"^(blocks\.\d+\.\d+)\._project_conv\.", r"\1.conv_pwl."),
    (r"^(blocks\.\d+\.\d+)\._bn(\d)\.", lambda m: f"{m[1]}.bn{int(m[2]) + 1}."),
    (r"^(blocks\.\d+\.\d+)\._se_reduce\.", r"\1.se.conv_reduce."),
    (r"^(blocks\.\d+\.\d+)\._se_expand\.", r"\1.se.conv_expand."),
]


def rename_efficientnet(weights: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename weights of the original EfficientNet-PyTorch to timm's names, which number blocks within each stage."""
    blocks = sorted({tuple(map(int, match.groups())) for name in target if (match := BLOCK.search(name))})
    renamed = {}
    for name, value in weights.items():
        if match := re.match(r"_blocks\.(\d+)\.", name):
            index = int(match[1])
            if index >= len(blocks):
                continue
            name = "blocks.{}.{}.".format(*blocks[index]) + name[match.end() :]
        for pattern, replacement in EFFICIENTNET_RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def rename_torchvision(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename weights of torchvision's ResNets to the names of transformers."""
    converted = convert_massformer_state_dict({f"backbone.{name}": value for name, value in weights.items()})
    return {name.removeprefix("model.backbone."): value for name, value in converted.items()}


def rename_swin(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename weights of Swin to the current names of transformers."""
    renamed = {}
    for name, value in weights.items():
        for pattern, replacement in SWIN_RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def resize_bias_table(table: torch.Tensor, length: int) -> torch.Tensor:
    """
    Resize Swin's relative position biases to another window size, bicubically per head (SeMask's release).

    Args:
        table (`torch.Tensor` of shape `((2 * window_size - 1) ** 2, num_heads)`): Position biases.
        length (`int`): Target number of biases per head.
    """
    old, new = (round(count**0.5) for count in (len(table), length))
    maps = table.T.reshape(1, -1, old, old)
    resized = F.interpolate(maps, size=(new, new), mode="bicubic", align_corners=False)
    return resized.reshape(table.shape[1], length).T.contiguous()


def bare(name: str) -> str:
    """Return a weight's name without the prefixes of checkpoints."""
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name


def candidates(weights: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Return the weights under every naming scheme that may match."""
    stripped = {bare(name): value for name, value in weights.items()}
    return [
        weights,
        stripped,
        rename_torchvision(stripped),
        rename_swin(stripped),
        rename_efficientnet(weights, target),
    ]


def match_weights(
    weights: dict[str, torch.Tensor], target: dict[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor]:
    """
    Return pretrained weights under a backbone's own names.

    Args:
        weights (`dict[str, torch.Tensor]`): Weights under the names of their source.
        target (`dict[str, torch.Tensor]`): The backbone's state dict.
        source (`str`): Name of the source in error messages.

    Raises:
        ValueError: If a weight is missing or has another shape.
    """
    needed = {bare(name): name for name in target if not OWN.search(name)}
    found = max(
        ({bare(name): value for name, value in names.items()} for names in candidates(weights, target)),
        key=lambda names: len(names.keys() & needed.keys()),
    )
    for short, name in needed.items():
        if name.endswith(BIAS_TABLE) and short in found and len(found[short]) != len(target[name]):
            found[short] = resize_bias_table(found[short], len(target[name]))
    missing = sorted(needed.keys() - found.keys())
    misshapen = [
        f"{name} is {tuple(found[short].shape)}, expected {tuple(target[name].shape)}"
        for short, name in needed.items()
        if short in found and found[short].shape != target[name].shape
    ]
    if missing or misshapen:
        details = [f"missing ({len(missing)}): {', '.join(missing[:5])}"] if missing else []
        details += [f"wrong shape ({len(misshapen)}): {', '.join(misshapen[:5])}"] if misshapen else []
        raise ValueError(
            f"The weights in {source} do not fit the backbone: {'; '.join(details)}. Use weights of the same "
            "architecture."
        )
    return {name: found[short] for short, name in needed.items()}


def weight_file(source: str) -> Path | None:
    """Return the weight file at a path or within a folder, or `None` for a model name."""
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        for name in WEIGHT_FILES:
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(f"{source} contains none of {', '.join(WEIGHT_FILES)}.")
    if path.suffix in SUFFIXES or source.startswith((".", "/", "~")):
        raise FileNotFoundError(f"There are no weights at {source}.")
    return None


def named_weights(name: str, backbone_config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Load the weights of a model on the Hub or, for a timm backbone, of that name in timm."""
    try:
        if backbone_config.model_type == "timm_backbone":
            import timm

            return timm.create_model(name, pretrained=True).state_dict()
        return AutoBackbone.from_pretrained(name, config=backbone_config).state_dict()
    except Exception as error:
        # Hub, network and file formats raise many types.
        raise ValueError(
            f"Weights named {name} could not be loaded ({error}). Without network access, pass a local file."
        ) from error


def load_backbone_weights(model: PreTrainedModel, source: str | Path) -> nn.Module:
    """
    Load pretrained weights into a model's backbone. Either all of its weights are replaced or, on an error, none.

    Args:
        model (`PreTrainedModel`): The model; modified in place.
        source (`str` or `Path`):
            A safetensors or PyTorch file (no code in it is executed), a folder with one, the Hub name of a model
            supported by transformers, or the name of a timm model if the backbone is timm's. Weight names may be those
            of transformers, timm, torchvision's ResNets or the original EfficientNet-PyTorch. Classifiers are ignored,
            semantic layers keep their values, and the position biases of a Swin with another window size are resized.

    Returns:
        `nn.Module`: The backbone.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read or does not fit the backbone.
    """
    source = str(source)
    backbone: Any = backbone_of(model)
    file = weight_file(source)
    weights = named_weights(source, backbone.config) if file is None else load_checkpoint(file)
    target = backbone.state_dict()
    matched = match_weights(weights, target, source)
    backbone.load_state_dict({**target, **matched})
    logger.info(f"Loaded the backbone from {source} ({len(matched)} tensors).")
    return backbone
