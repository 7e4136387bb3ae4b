"""Training: arguments, parameter groups, backbone weights and the Trainer."""

from .arguments import DataArguments, MaSSFormerTrainingArguments, ModelArguments
from .backbone_weights import load_backbone_weights
from .classes import LabelSetting, add_classes
from .parameters import parameter_groups
from .trainer import MaSSFormerTrainer


__all__ = [
    "DataArguments",
    "LabelSetting",
    "MaSSFormerTrainer",
    "MaSSFormerTrainingArguments",
    "ModelArguments",
    "add_classes",
    "load_backbone_weights",
    "parameter_groups",
]
