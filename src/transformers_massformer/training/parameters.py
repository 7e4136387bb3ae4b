"""Trained parameters, optimiser groups and normalisation statistics."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel
from transformers.utils import logging

from ..models.modeling_massformer import MaSSFormerDeformableConvLayer
from .arguments import MaSSFormerTrainingArguments


logger = logging.get_logger(__name__)

# Exempt from weight decay (release): normalisation layers, and embeddings of queries, positions and levels.
UNDECAYED = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.Embedding)


def backbone_of(model: nn.Module) -> nn.Module:
    """
    Return the backbone of a model. In MaskFormer, Mask2Former and OneFormer this is the encoder of the pixel-level
    module, in SegFormer the base model, and in EoMT everything before the heads.

    Raises:
        ValueError: If the model has no backbone.
    """
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "backbone" or name.endswith(("pixel_level_module.encoder", "segformer")):
            return module
    if {"embeddings", "layers"} <= {name for name, _ in model.named_children()}:
        return nn.ModuleList([model.get_submodule("embeddings"), model.get_submodule("layers")])
    raise ValueError(f"{type(model).__name__} has no backbone.")


def batch_norms(module: nn.Module) -> Iterable[_BatchNorm]:
    """Iterate over all batch normalisation layers in a module."""
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, backbone_factor: float, offset_factor: float = 1.0
) -> list[dict[str, object]]:
    """
    Group the trained parameters for an optimiser: the backbone and the offsets of deformable convolutions have their
    own learning rates, and normalisation layers and the embeddings of queries, positions and levels have no weight
    decay (release).

    Args:
        model (`nn.Module`): A model with a backbone.
        learning_rate (`float`): Learning rate outside the backbone.
        weight_decay (`float`): Weight decay of all other parameters.
        backbone_factor (`float`): Learning rate of the backbone relative to `learning_rate`.
        offset_factor (`float`, *optional*, defaults to 1.0):
            Learning rate of the layers that compute offsets relative to `learning_rate`.

    Returns:
        `list[dict]`: At most six groups with `params`, `lr` and `weight_decay`.
    """
    factors = {id(parameter): backbone_factor for parameter in backbone_of(model).parameters()}
    undecayed: set[int] = set()
    for module in model.modules():
        if isinstance(module, UNDECAYED):
            undecayed |= {id(parameter) for parameter in module.parameters(recurse=False)}
        if isinstance(module, MaSSFormerDeformableConvLayer):
            factors |= {id(parameter): offset_factor for parameter in module.offset.parameters()}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = factors.get(id(parameter), 1.0), id(parameter) not in undecayed
            groups.setdefault(key, []).append(parameter)
    # The logged learning rate is the first group's: `learning_rate` itself.
    return [
        {"params": parameters, "lr": learning_rate * factor, "weight_decay": weight_decay if decays else 0.0}
        for (factor, decays), parameters in sorted(groups.items(), key=lambda group: (abs(group[0][0] - 1), group[0]))
    ]


def freeze(model: nn.Module, args: MaSSFormerTrainingArguments):
    """Freeze the backbone, or only scale and shift of its batch normalisation layers, as set in the arguments."""
    backbone = backbone_of(model)
    if args.freeze_backbone:
        backbone.requires_grad_(False)
    elif not args.train_backbone_norms:
        for layer in batch_norms(backbone):
            layer.requires_grad_(False)


def fix_statistics(model: nn.Module, args: MaSSFormerTrainingArguments):
    """Set the batch normalisation layers with fixed statistics to eval mode; call after `model.train()`."""
    backbone = backbone_of(model)
    if args.freeze_backbone:
        backbone.eval()
    if args.fixed_norm_statistics != "none":
        for layer in batch_norms(model if args.fixed_norm_statistics == "all" else backbone):
            layer.eval()


def synchronize_statistics(model: PreTrainedModel, args: MaSSFormerTrainingArguments):
    """
    Synchronise the backbone's batch normalisation over all processes (release). PyTorch supports this on CUDA only;
    on other devices each process normalises its own images.
    """
    backbone = backbone_of(model)
    if args.world_size == 1 or args.freeze_backbone or args.fixed_norm_statistics != "none":
        return
    if args.device.type != "cuda":
        logger.warning_once(
            f"Batch normalisation of the backbone is not synchronised over processes on {args.device.type}: PyTorch "
            "supports this on CUDA only. Each process normalises its own images."
        )
        return
    # timm's layers fuse batch normalisation and activation; PyTorch's conversion would drop the activation.
    if model.config.backbone_config.model_type == "timm_backbone":
        from timm.layers import convert_sync_batchnorm

        convert_sync_batchnorm(backbone)
    else:
        nn.SyncBatchNorm.convert_sync_batchnorm(backbone)
