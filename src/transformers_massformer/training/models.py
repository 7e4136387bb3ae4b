"""The models that can be trained, with the image processors that are saved with them."""

import contextlib
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, PreTrainedConfig, PreTrainedModel

from ..conversion import SEMASK_VARIANTS, VARIANTS, semask_variant_config, variant_config
from ..inference.loading import auto_class
from ..inference.predictor import task_inputs
from ..models.configuration_massformer import MASS13K_LABELS, MaSSFormerConfig
from ..models.image_processing_massformer import MaSSFormerImageProcessor
from ..models.image_processing_semask import SeMaskImageProcessor
from .arguments import ModelArguments
from .backbone_weights import load_backbone_weights
from .classes import add_classes, class_names, label_names


# Models whose image processors leave photographs at their own size.
OWN_TYPES = ("massformer", "per_pixel_baseline", "semask")


def build_model(
    arguments: ModelArguments, crop_size: int | None = None
) -> tuple[PreTrainedModel, Any, dict[str, torch.Tensor]]:
    """
    The model to train, in float32.

    Args:
        arguments ([`ModelArguments`]): Which.
        crop_size (`int`, *optional*): Side of the crops it will see, for models that see one size only.

    Returns:
        `tuple`: the model; its image processor, which leaves photographs at their own size; and what the model is
        given with every image.

    Raises:
        FileNotFoundError: If there is no such model or file.
        ValueError: If it segments no classes, or its configuration or weights do not fit.
    """
    names = label_names(arguments.labels) if arguments.labels else {}
    fields = {**arguments.config_fields(), **names}
    source = arguments.model
    if source is None or source in VARIANTS or source in SEMASK_VARIANTS:
        config = new_config(source, fields)
        model = auto_class(config).from_config(config)
    else:
        model = load_for_training(source, fields)
    if arguments.backbone_weights is not None:
        load_backbone_weights(model, arguments.backbone_weights)
    if arguments.add_class:
        model = add_classes(model, arguments.add_class)
    return model, processor_for(model, source, crop_size), constant_inputs_of(model, source)


def new_config(variant: str | None, fields: dict[str, Any]) -> PreTrainedConfig:
    """
    The configuration of a published variant with some fields set otherwise, or of the type among the fields.

    Raises:
        ValueError: If there is no such type.
    """
    if variant in VARIANTS:
        return variant_config(variant, **fields)
    if variant in SEMASK_VARIANTS:
        labels = fields.get("id2label") or MASS13K_LABELS
        return semask_variant_config(variant, len(labels), **fields)
    fields = dict(fields)
    model_type = fields.pop("model_type", MaSSFormerConfig.model_type)
    if "id2label" not in fields and "num_labels" not in fields:
        fields |= label_names(MASS13K_LABELS)
    return AutoConfig.for_model(model_type, **fields)


def load_for_training(source: str, fields: dict[str, Any]) -> PreTrainedModel:
    """A model from a folder or a Hub name; without weights it starts anew, as do classes of another number."""
    folder = Path(source)
    try:
        config = AutoConfig.from_pretrained(source, **fields)
        found = auto_class(config)
        if folder.exists() and not list(folder.glob("*.safetensors")):
            return found.from_config(config)
        return found.from_pretrained(source, config=config, dtype=torch.float32, ignore_mismatched_sizes=True)
    except OSError as error:
        raise FileNotFoundError(
            f"There is no model at {source}: name one of {', '.join([*VARIANTS, *SEMASK_VARIANTS])}, or a folder with "
            f"a configuration ({error})"
        ) from error


def processor_for(model: PreTrainedModel, source: str | None, crop_size: int | None) -> Any:
    """
    The image processor that is saved with a model. Photographs keep their own size, whatever the model's usual one
    does; EoMT, which knows one size only, slides a window of the crops' size over them.
    """
    config, num_labels = model.config, len(class_names(model))
    if config.model_type == "eomt":
        side: Any = {"shortest_edge": crop_size or config.image_size, "longest_edge": None}
        return transformers.EomtImageProcessor(size=side, do_split_image=True, do_pad=False)
    if config.model_type == "oneformer":
        # It has the tokenizer of the task.
        return AutoProcessor.from_pretrained(source)
    is_variant = source is None or source in VARIANTS or source in SEMASK_VARIANTS
    if config.model_type in OWN_TYPES and not is_variant:
        # A folder with nothing but a configuration has none.
        with contextlib.suppress(OSError):
            return AutoImageProcessor.from_pretrained(source, num_labels=num_labels)
    kind = SeMaskImageProcessor if config.model_type == "semask" else MaSSFormerImageProcessor
    return kind(num_labels=num_labels, ignore_index=getattr(config, "ignore_index", 255))


def constant_inputs_of(model: PreTrainedModel, source: str | None) -> dict[str, torch.Tensor]:
    """
    What a model is given with every image: OneFormer the task, in words.

    Raises:
        ValueError: If a OneFormer comes without its tokenizer.
    """
    if model.config.model_type != "oneformer":
        return {}
    if source is None:
        raise ValueError(
            "OneFormer is told its task in words: name a folder or Hub name with its tokenizer as --model."
        )
    return task_inputs(source, model.device)
