"""Build the model to train and the image processor that is saved with it."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..conversion import SEMASK_VARIANTS, VARIANTS, semask_variant_config, variant_config
from ..inference.loading import auto_class, base_of_adapter, class_names, is_adapter
from ..inference.predictor import task_inputs
from ..models.arguments import refuse_unknown
from ..models.configuration_massformer import MASS13K_LABELS, MaSSFormerConfig
from ..models.configuration_semask_swin import SeMaskConfig
from ..models.image_processing_massformer import MaSSFormerImageProcessor
from ..models.image_processing_semask import SeMaskImageProcessor
from .arguments import ModelArguments
from .backbone_weights import load_backbone_weights
from .classes import add_classes, label_names


# They learn better with these than with the release's graph (docs/experiments.md).
NEW_MODEL_FIELDS: dict[str, Any] = {
    "detail_residual": True,
    "cross_semantic_residual": True,
    "receptive_field_residual": True,
    "pooled_batch_norm": False,
    "pixel_loss_weight": 2.0,
}
# Model types whose image processors keep photos at their own size.
OWN_TYPES = ("massformer", "per_pixel_baseline", "semask")


def build_model(
    arguments: ModelArguments, crop_size: int | None = None
) -> tuple[PreTrainedModel, Any, dict[str, torch.Tensor]]:
    """
    Build or load the model to train, in float32.

    Args:
        arguments ([`ModelArguments`]): The model to train.
        crop_size (`int`, *optional*): Side of the training crops, for models with a fixed input size.

    Returns:
        `tuple`: the model; its image processor, which keeps photos at their own size; and constant inputs that are
        passed to the model with every image.

    Raises:
        FileNotFoundError: If the model or a file does not exist.
        ValueError: If it is not a segmentation model, or its configuration or weights do not fit.
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


def check_fields(config_class: type[PreTrainedConfig], given: dict[str, Any], where: str = "model_config"):
    """
    Refuse fields of a configuration that do not exist, which the library would store without a word.

    Args:
        config_class (`type`): The class of the configuration.
        given (`dict[str, Any]`): Fields to override.
        where (`str`, *optional*): Where they stand, for the message.

    Raises:
        ValueError: If some do not exist, also in the configuration of the backbone.
    """
    # timm's models take arguments that no configuration names.
    if config_class.model_type != "timm_backbone":
        # Labels and backbones are set through properties and arguments besides the fields.
        known = {field.name for field in dataclasses.fields(config_class)} | {*config_class.attribute_map}
        refuse_unknown(where, given, known | {"model_type", "num_labels", "out_features", "out_indices"})
    for name, value in given.items():
        kind = value.get("model_type") if isinstance(value, dict) else None
        if kind in CONFIG_MAPPING:
            check_fields(CONFIG_MAPPING[kind], value, f"{where}.{name}")


def new_config(variant: str | None, fields: dict[str, Any]) -> PreTrainedConfig:
    """
    Return the configuration of a published variant with some fields overridden; a new MaSSFormer has
    `NEW_MODEL_FIELDS`. Without a variant, `model_type` among the fields chooses the configuration class.

    Raises:
        ValueError: If the model type or a field is unknown.
    """
    kind = SeMaskConfig if variant in SEMASK_VARIANTS else MaSSFormerConfig
    if variant is None and fields.get("model_type") in CONFIG_MAPPING:
        kind = CONFIG_MAPPING[fields["model_type"]]
    check_fields(kind, fields)
    if variant in VARIANTS:
        return variant_config(variant, **{**NEW_MODEL_FIELDS, **fields})
    if variant in SEMASK_VARIANTS:
        labels = fields.get("id2label") or MASS13K_LABELS
        return semask_variant_config(variant, len(labels), **fields)
    fields = dict(fields)
    model_type = fields.pop("model_type", MaSSFormerConfig.model_type)
    if "id2label" not in fields and "num_labels" not in fields:
        fields |= label_names(MASS13K_LABELS)
    return AutoConfig.for_model(model_type, **fields)


def load_for_training(source: str, fields: dict[str, Any]) -> PreTrainedModel:
    """Load a model from a folder or a Hub name. Missing weights, and a class head of another size, are initialised."""
    folder = Path(source)
    if is_adapter(folder):
        raise ValueError(
            f"{folder} is an adapter of {base_of_adapter(folder)}. Merge both (peft's `merge_and_unload`), save the "
            "model and train it, or train the adapter in Python."
        )
    try:
        config = AutoConfig.from_pretrained(source, **fields)
        check_fields(type(config), fields)
        found = auto_class(config)
        if folder.exists() and not list(folder.glob("*.safetensors")):
            return found.from_config(config)
        return found.from_pretrained(source, config=config, dtype=torch.float32, ignore_mismatched_sizes=True)
    except OSError as error:
        raise FileNotFoundError(
            f"There is no model at {source}: use one of {', '.join([*VARIANTS, *SEMASK_VARIANTS])}, or a folder with "
            f"a configuration ({error})"
        ) from error


def processor_for(model: PreTrainedModel, source: str | None, crop_size: int | None) -> Any:
    """
    Return the image processor to save with a model. It keeps photos at their own size, unlike most models' usual
    processors; for EoMT, whose input size is fixed, it splits them into windows of the crop size.
    """
    config, num_labels = model.config, len(class_names(model.config))
    if config.model_type == "eomt":
        side: Any = {"shortest_edge": crop_size or config.image_size, "longest_edge": None}
        return transformers.EomtImageProcessor(size=side, do_split_image=True, do_pad=False)
    if config.model_type == "oneformer":
        # The processor includes the tokenizer of the task.
        return AutoProcessor.from_pretrained(source)
    is_variant = source is None or source in VARIANTS or source in SEMASK_VARIANTS
    if config.model_type in OWN_TYPES and not is_variant:
        # A folder with only a configuration has no processor.
        with contextlib.suppress(OSError):
            return AutoImageProcessor.from_pretrained(source, num_labels=num_labels)
    kind = SeMaskImageProcessor if config.model_type == "semask" else MaSSFormerImageProcessor
    return kind(num_labels=num_labels, ignore_index=getattr(config, "ignore_index", 255))


def constant_inputs_of(model: PreTrainedModel, source: str | None) -> dict[str, torch.Tensor]:
    """
    Return the inputs that a model takes with every image: OneFormer's tokenized task.

    Raises:
        ValueError: If the source of a OneFormer, and so its tokenizer, is unknown.
    """
    if model.config.model_type != "oneformer":
        return {}
    if source is None:
        raise ValueError(
            "OneFormer needs the tokenizer of its task prompt: pass a folder or Hub name that includes it as --model."
        )
    return task_inputs(source, model.device)
