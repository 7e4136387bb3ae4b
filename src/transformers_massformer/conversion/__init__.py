"""Convert the authors' checkpoints to transformers folders."""

from .checkpoints import load_checkpoint
from .massformer import convert_massformer_checkpoint, convert_massformer_state_dict
from .semask import (
    SEMASK_VARIANTS,
    convert_semask_checkpoint,
    convert_semask_state_dict,
    semask_variant_config,
)
from .variants import VARIANTS, variant_config


__all__ = [
    "SEMASK_VARIANTS",
    "VARIANTS",
    "convert_massformer_checkpoint",
    "convert_massformer_state_dict",
    "convert_semask_checkpoint",
    "convert_semask_state_dict",
    "load_checkpoint",
    "semask_variant_config",
    "variant_config",
]
