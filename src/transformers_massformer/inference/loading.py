"""Loading a segmentation model, its image processor and the names of its classes."""

import copy
import re
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
    MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
)

from ..models.configuration_massformer import MaSSFormerConfig
from ..utils.names import names_in_order


# Names of models on the Hub, with or without an owner.
HUB_NAME = r"[\w.-]+(/[\w.-]+)?"


def default_device() -> str:
    """Return the fastest device available: CUDA, Apple's GPU, or the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def class_names(config: PreTrainedConfig) -> list[str]:
    """
    Return the names of a model's classes in the order of their ids.

    Raises:
        ValueError: If `id2label` has gaps, or keys that are not ids.
    """
    return [str(name) for name in names_in_order(config.id2label or {}, "id2label of the model's configuration")]


def auto_class(config: PreTrainedConfig) -> Any:
    """Return the Auto class that builds segmentation models with this configuration."""
    for mapping, found in (
        (MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING, AutoModelForSemanticSegmentation),
        (MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING, AutoModelForUniversalSegmentation),
    ):
        if type(config) in mapping:
            return found
    raise ValueError(f"A model of type {config.model_type} is not for semantic or universal segmentation.")


def has_queries(config: PreTrainedConfig) -> bool:
    """Tell whether models with this configuration return class and mask queries, and not logits per pixel."""
    return config.model_type == MaSSFormerConfig.model_type or type(config) in MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING


def load_model(model: str | Path) -> tuple[PreTrainedModel, Any]:
    """
    Load a segmentation model in float32, ready for inference, and its image processor.

    Args:
        model (`str` or `Path`): A folder (or Hub name) with both.

    Raises:
        FileNotFoundError: If the model or its weights are missing.
        ValueError: If it is not a segmentation model.
    """
    path = Path(model)
    is_hub_name = isinstance(model, str) and re.fullmatch(HUB_NAME, model)
    if not path.is_dir() and not is_hub_name:
        raise FileNotFoundError(f"There is no model folder {model}.")
    if path.is_dir() and not list(path.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{model} holds no weights (*.safetensors). Convert a checkpoint with `massformer convert`, or name a "
            "folder that a training saved."
        )
    try:
        found = auto_class(AutoConfig.from_pretrained(model))
        processor = AutoImageProcessor.from_pretrained(model)
        network = found.from_pretrained(model, dtype=torch.float32)
    except OSError as error:
        raise FileNotFoundError(f"There is no model at {model}: {error}") from error
    if hasattr(network, "fuse"):
        network.fuse()
    return network.eval(), processor


def inference_copy(model: PreTrainedModel) -> PreTrainedModel:
    """
    Copy a model in training to what [`load_model`] would load: fused, in eval mode, and computing in the type of its
    weights, not in the mixed precision of the training. Layers with adapters are not fused.
    """
    from accelerate.utils import extract_model_from_parallel

    twin: Any = extract_model_from_parallel(copy.deepcopy(model), keep_fp32_wrapper=False).eval()
    if hasattr(twin, "fuse") and not getattr(twin, "_hf_peft_config_loaded", False):
        twin.fuse()
    return twin
