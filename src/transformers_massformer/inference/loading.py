"""Loading a segmentation model, its image processor and the names of its classes."""

import copy
import json
import re
import warnings
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
from ..utils.extras import require
from ..utils.names import names_in_order


ADAPTER_FILE = "adapter_config.json"
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


def is_adapter(model: str | Path) -> bool:
    """Tell whether a folder holds an adapter of peft, without the model that it belongs to."""
    path = Path(model)
    return (path / ADAPTER_FILE).is_file() and not (path / "config.json").is_file()


def base_of_adapter(folder: Path) -> str:
    """
    Return the folder or Hub name of the model that an adapter belongs to.

    Raises:
        FileNotFoundError: If the adapter does not name it, or it is not there.
    """
    named = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8")).get("base_model_name_or_path")
    beside = folder / str(named)
    if named and not Path(named).is_dir() and beside.is_dir():
        return str(beside)
    if not named or not (Path(named).is_dir() or is_hub_name(named)):
        raise FileNotFoundError(
            f"{folder} is an adapter of {named or 'an unnamed model'}, which is not there. Set "
            f"`base_model_name_or_path` in its {ADAPTER_FILE} to the folder of the model that it was trained on."
        )
    return named


def merge_adapter(network: PreTrainedModel, folder: Path) -> Any:
    """
    Return a model with an adapter merged into its weights.

    Raises:
        MissingExtraError: If peft is not installed.
        ValueError: If the adapter does not fit the model.
    """
    peft = require("peft", "adapters", f"The adapter {folder}")
    try:
        with warnings.catch_warnings():
            # Otherwise the model would be used without these weights.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return peft.PeftModel.from_pretrained(network, str(folder)).merge_and_unload()
    except (RuntimeError, ValueError, UserWarning) as error:
        raise ValueError(f"The adapter {folder} does not fit its model {network.name_or_path}: {error}") from error


def is_hub_name(model: str | Path) -> bool:
    """Tell whether a name could be that of a model on the Hub."""
    return isinstance(model, str) and re.fullmatch(HUB_NAME, model) is not None


def load_model(model: str | Path) -> tuple[PreTrainedModel, Any]:
    """
    Load a segmentation model in float32, ready for inference, and its image processor.

    Args:
        model (`str` or `Path`):
            A folder (or Hub name) with both, or a folder with an adapter of peft, which is merged into its model.

    Raises:
        FileNotFoundError: If the model or its weights are missing.
        MissingExtraError: If an adapter needs peft, which is not installed.
        ValueError: If it is not a segmentation model, or an adapter does not fit its model.
    """
    path, adapter = Path(model), None
    if is_adapter(model):
        adapter, model = path, base_of_adapter(path)
        path = Path(model)
    if not path.is_dir() and not is_hub_name(model):
        raise FileNotFoundError(f"There is no model folder {model}.")
    if path.is_dir() and not list(path.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{model} holds no weights (*.safetensors). Convert a checkpoint with `massformer convert`, or name a "
            "folder that a training saved."
        )
    try:
        found = auto_class(AutoConfig.from_pretrained(model))
        has_processor = adapter is not None and (adapter / "preprocessor_config.json").is_file()
        processor = AutoImageProcessor.from_pretrained(adapter if has_processor else model)
        network = found.from_pretrained(model, dtype=torch.float32)
    except OSError as error:
        raise FileNotFoundError(f"There is no model at {model}: {error}") from error
    if adapter is not None:
        network = merge_adapter(network, adapter)
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
