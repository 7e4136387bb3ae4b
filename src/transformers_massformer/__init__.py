"""MaSSFormer: sharp, multi-class segmentation of whole 4K photographs, as a transformers model."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES

from .images import open_image
from .models.configuration_massformer import MASS13K_LABELS, MaSSFormerConfig
from .models.configuration_per_pixel_baseline import PerPixelBaselineConfig
from .models.configuration_semask_swin import SeMaskConfig, SeMaskSwinConfig
from .models.deform_conv import ModulatedDeformConv2d
from .models.image_processing_massformer import MaSSFormerImageProcessor
from .models.image_processing_semask import SeMaskImageProcessor
from .models.loss_massformer import MaSSFormerLoss
from .models.modeling_massformer import MaSSFormerForSemanticSegmentation, MaSSFormerModel, MaSSFormerPreTrainedModel
from .models.modeling_per_pixel_baseline import PerPixelBaselineForSemanticSegmentation, PerPixelBaselineModel
from .models.modeling_semask_swin import (
    SeMaskForSemanticSegmentation,
    SeMaskModel,
    SeMaskPreTrainedModel,
    SeMaskSwinBackbone,
    SeMaskSwinModel,
    SeMaskSwinPreTrainedModel,
)


__version__ = "0.1.0"

AutoConfig.register(MaSSFormerConfig.model_type, MaSSFormerConfig)
AutoModel.register(MaSSFormerConfig, MaSSFormerModel)
# SeMask's backbone registers its configuration itself, because its models look it up by name.
AutoModel.register(SeMaskSwinConfig, SeMaskSwinModel)
AutoConfig.register(SeMaskConfig.model_type, SeMaskConfig)
AutoModel.register(SeMaskConfig, SeMaskModel)
AutoConfig.register(PerPixelBaselineConfig.model_type, PerPixelBaselineConfig)
AutoModel.register(PerPixelBaselineConfig, PerPixelBaselineModel)
for config_class, model_class, processor_class in (
    (MaSSFormerConfig, MaSSFormerForSemanticSegmentation, MaSSFormerImageProcessor),
    (PerPixelBaselineConfig, PerPixelBaselineForSemanticSegmentation, MaSSFormerImageProcessor),
    (SeMaskConfig, SeMaskForSemanticSegmentation, SeMaskImageProcessor),
):
    AutoModelForSemanticSegmentation.register(config_class, model_class)
    AutoImageProcessor.register(config_class, image_processor_classes={"torchvision": processor_class})
    # The segmentation pipeline logs an error for models that are not in this table.
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES[config_class.model_type] = model_class.__name__
del config_class, model_class, processor_class

__all__ = [
    "MASS13K_LABELS",
    "MaSSFormerConfig",
    "MaSSFormerForSemanticSegmentation",
    "MaSSFormerImageProcessor",
    "MaSSFormerLoss",
    "MaSSFormerModel",
    "MaSSFormerPreTrainedModel",
    "ModulatedDeformConv2d",
    "PerPixelBaselineConfig",
    "PerPixelBaselineForSemanticSegmentation",
    "PerPixelBaselineModel",
    "SeMaskConfig",
    "SeMaskForSemanticSegmentation",
    "SeMaskImageProcessor",
    "SeMaskModel",
    "SeMaskPreTrainedModel",
    "SeMaskSwinBackbone",
    "SeMaskSwinConfig",
    "SeMaskSwinModel",
    "SeMaskSwinPreTrainedModel",
    "open_image",
]
