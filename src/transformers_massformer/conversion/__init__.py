"""From the authors' checkpoints to transformers folders."""

from .checkpoints import load_checkpoint
from .massformer import convert_massformer_checkpoint, convert_massformer_state_dict
from .variants import VARIANTS, variant_config


__all__ = [
    "VARIANTS",
    "convert_massformer_checkpoint",
    "convert_massformer_state_dict",
    "load_checkpoint",
    "variant_config",
]
