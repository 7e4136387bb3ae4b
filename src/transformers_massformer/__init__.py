"""MaSSFormer: sharp, multi-class segmentation of whole 4K photographs, as a transformers model."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES

from .configuration_massformer import MASS13K_LABELS, MaSSFormerConfig
from .deform_conv import ModulatedDeformConv2d
from .image_processing_massformer import MaSSFormerImageProcessor, open_image
from .loss_massformer import MaSSFormerLoss
from .modeling_massformer import MaSSFormerForSemanticSegmentation, MaSSFormerModel, MaSSFormerPreTrainedModel


__version__ = "0.1.0"

AutoConfig.register(MaSSFormerConfig.model_type, MaSSFormerConfig)
AutoModel.register(MaSSFormerConfig, MaSSFormerModel)
AutoModelForSemanticSegmentation.register(MaSSFormerConfig, MaSSFormerForSemanticSegmentation)
AutoImageProcessor.register(MaSSFormerConfig, image_processor_classes={"torchvision": MaSSFormerImageProcessor})
# The segmentation pipeline knows models by this table of names and logs an error for others.
MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES[MaSSFormerConfig.model_type] = MaSSFormerForSemanticSegmentation.__name__

__all__ = [
    "MASS13K_LABELS",
    "MaSSFormerConfig",
    "MaSSFormerForSemanticSegmentation",
    "MaSSFormerImageProcessor",
    "MaSSFormerLoss",
    "MaSSFormerModel",
    "MaSSFormerPreTrainedModel",
    "ModulatedDeformConv2d",
    "open_image",
]
