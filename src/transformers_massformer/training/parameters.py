"""Which parameters are trained, and how."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel
from transformers.utils import logging

from .arguments import MaSSFormerTrainingArguments


logger = logging.get_logger(__name__)

# Without weight decay (release): normalisations, and the embeddings of queries, positions and levels.
UNDECAYED = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.Embedding)


def backbone_of(model: nn.Module) -> nn.Module:
    """
    The backbone of a model, whatever wraps it: MaskFormer, Mask2Former and OneFormer call it their pixel-level
    module's encoder, SegFormer's has its own name, and EoMT's is all that comes before its heads.

    Raises:
        ValueError: If it has none.
    """
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "backbone" or name.endswith(("pixel_level_module.encoder", "segformer")):
            return module
    if {"embeddings", "layers"} <= {name for name, _ in model.named_children()}:
        return nn.ModuleList([model.get_submodule("embeddings"), model.get_submodule("layers")])
    raise ValueError(f"{type(model).__name__} has no backbone.")


def batch_norms(module: nn.Module) -> Iterable[_BatchNorm]:
    """All batch normalisations within."""
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, backbone_factor: float
) -> list[dict[str, object]]:
    """
    The trained parameters for an optimiser: those of the backbone learn more slowly, and neither normalisations nor
    the embeddings of queries and levels decay (release).

    Args:
        model (`nn.Module`): A model with a backbone.
        learning_rate (`float`): Of all but the backbone.
        weight_decay (`float`): Of all that decays.
        backbone_factor (`float`): Factor of the learning rate in the backbone.

    Returns:
        `list[dict]`: At most four groups with `params`, `lr` and `weight_decay`.
    """
    in_backbone = {id(parameter) for parameter in backbone_of(model).parameters()}
    undecayed = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, UNDECAYED)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in in_backbone, id(parameter) not in undecayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * backbone_factor if slow else learning_rate,
            "weight_decay": weight_decay if decays else 0.0,
        }
        # The learning rate in the log is the first group's.
        for (slow, decays), parameters in sorted(groups.items())
    ]


def freeze(model: nn.Module, args: MaSSFormerTrainingArguments):
    """Takes from training what is not to be trained: the backbone, or scale and shift of its batch normalisations."""
    backbone = backbone_of(model)
    if args.freeze_backbone:
        backbone.requires_grad_(False)
    elif not args.train_backbone_norms:
        for layer in batch_norms(backbone):
            layer.requires_grad_(False)


def fix_statistics(model: nn.Module, args: MaSSFormerTrainingArguments):
    """Puts those batch normalisations in eval mode that are to keep their statistics; after `model.train()`."""
    backbone = backbone_of(model)
    if args.freeze_backbone:
        backbone.eval()
    if args.fixed_norm_statistics != "none":
        for layer in batch_norms(model if args.fixed_norm_statistics == "all" else backbone):
            layer.eval()


def synchronize_statistics(model: PreTrainedModel, args: MaSSFormerTrainingArguments):
    """
    Lets the backbone's batch normalisations see the images of all processes (release). PyTorch can do that on CUDA
    only; elsewhere each process normalises its own.
    """
    backbone = backbone_of(model)
    if args.world_size == 1 or args.freeze_backbone or args.fixed_norm_statistics != "none":
        return
    if args.device.type != "cuda":
        logger.warning_once(
            f"The backbone's batch normalisations are not synchronised over processes on {args.device.type}: PyTorch "
            "can do that on CUDA only. Each process normalises its own images."
        )
        return
    # timm's layers are batch normalisation and activation in one, which PyTorch's conversion would drop.
    if model.config.backbone_config.model_type == "timm_backbone":
        from timm.layers import convert_sync_batchnorm

        convert_sync_batchnorm(backbone)
    else:
        nn.SyncBatchNorm.convert_sync_batchnorm(backbone)
