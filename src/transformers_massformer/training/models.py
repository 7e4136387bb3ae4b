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
from ..data.class_names import DataClasses, read_given_names
from ..inference.loading import auto_class, base_of_adapter, class_names, is_adapter
from ..inference.predictor import task_inputs
from ..models.arguments import refuse_unknown
from ..models.configuration_massformer import MASS13K_LABELS, MaSSFormerConfig
from ..models.configuration_semask_swin import SeMaskConfig
from ..models.image_processing_massformer import MaSSFormerImageProcessor
from ..models.image_processing_semask import SeMaskImageProcessor
from ..utils.names import check_names, find_name, list_names, match_names, names_in_order, same_names
from .arguments import ModelArguments
from .backbone_weights import load_backbone_weights
from .classes import add_classes, follow_names, label_names


# They learn better with these than with the release's graph (docs/experiments.md).
NEW_MODEL_FIELDS: dict[str, Any] = {
    "detail_residual": True,
    "cross_semantic_residual": True,
    "receptive_field_residual": True,
    "pooled_batch_norm": False,
    "pixel_loss_weight": 2.0,
}
# Configuration fields that name or count the classes.
LABEL_FIELDS = {"id2label", "label2id", "num_labels"}
# Model types whose image processors keep photos at their own size.
OWN_TYPES = ("massformer", "per_pixel_baseline", "semask")


def build_model(
    arguments: ModelArguments, crop_size: int | None = None, classes: DataClasses | None = None
) -> tuple[PreTrainedModel, Any, dict[str, torch.Tensor]]:
    """
    Build or load the model to train, in float32.

    Args:
        arguments ([`ModelArguments`]): The model to train.
        crop_size (`int`, *optional*): Side of the training crops, for models with a fixed input size.
        classes ([`DataClasses`], *optional*): The classes of the data to train on; by default, those of the arguments.

    Returns:
        `tuple`: the model; its image processor, which keeps photos at their own size; and constant inputs that are
        passed to the model with every image.

    Raises:
        FileNotFoundError: If the model or a file does not exist.
        ValueError: If it is not a segmentation model, or its configuration, weights or classes do not fit.
    """
    fields = arguments.config_fields()
    names, added, source = declared_names(arguments, fields, classes), arguments.add_class or [], arguments.model
    if source is None or source in VARIANTS or source in SEMASK_VARIANTS:
        base = [name for name in names or () if find_name(name, added) is None]
        config = new_config(source, {**without_labels(fields), **label_names(base)} if base else fields)
        model, may_lack = auto_class(config).from_config(config), False
    else:
        model, may_lack = load_for_training(source, without_labels(fields))
        if names is None and fields.get("num_labels") not in (None, len(class_names(model.config))):
            names = [f"LABEL_{index}" for index in range(fields["num_labels"])]
        may_lack = may_lack or arguments.new_classes or not fields.keys().isdisjoint(LABEL_FIELDS)
    if arguments.backbone_weights is not None:
        load_backbone_weights(model, arguments.backbone_weights)
    if names is None and classes is not None and not may_lack:
        names = assumed_names(class_names(model.config), classes)
    if added:
        model = add_classes(model, added)
    if names is not None:
        names = [*names, *(name for name in added if find_name(name, names) is None)]
        model = follow_names(model, names, new=None if may_lack else ())
    return model, processor_for(model, source, crop_size), constant_inputs_of(model, source)


def declared_names(arguments: ModelArguments, fields: dict[str, Any], classes: DataClasses | None) -> list[str] | None:
    """
    Return the names of the classes to train in the order of their ids, as the data, the arguments or the configuration
    declare them; `None` if none does.

    Raises:
        ValueError: If they differ.
    """
    if classes is None:
        names, origin = read_given_names(arguments.labels), "--labels"
    else:
        names, origin = None if classes.is_assumed else classes.names, classes.origin
    if "id2label" in fields:
        in_config = check_names(names_in_order(fields["id2label"], "model_config"), "model_config")
        if names is not None and not same_names(names, in_config):
            raise ValueError(
                f"{origin} and id2label of model_config differ: {list_names(names)}; and {list_names(in_config)}. "
                "Leave out id2label, or correct one."
            )
        names = names or in_config
    if names is not None and fields.get("num_labels") not in (None, len(names)):
        raise ValueError(
            f"{origin} has {len(names)} classes, but model_config has num_labels {fields['num_labels']}. Leave it out."
        )
    return names


def assumed_names(labels: list[str], classes: DataClasses) -> list[str]:
    """
    Return the classes to train where nothing names those of the data, which are taken to be MaSS13K's: the model's, if
    they begin with these, as after adding classes, or are these in another order.

    Raises:
        ValueError: If the model's classes are others.
    """
    count = len(classes.names)
    if same_names(labels[:count], classes.names):
        return labels
    if len(labels) == count and None not in match_names(classes.names, labels, classes.origin, "the model"):
        return classes.names
    raise ValueError(
        f"The data has no class names, so its classes are taken to be MaSS13K's; the model has others: "
        f"{list_names(labels)}. Name the data's classes: --labels NAME NAME ..., --labels MODEL (a model's folder) if "
        "they are that model's, or a classes.txt beside the data. To train MaSS13K's classes with this model, pass "
        f"--labels {' '.join(classes.names)} --new_classes."
    )


def without_labels(fields: dict[str, Any]) -> dict[str, Any]:
    """Return configuration fields without those that name the classes."""
    return {name: value for name, value in fields.items() if name not in LABEL_FIELDS}


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
        kind: Any = value.get("model_type") if isinstance(value, dict) else None
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


def load_for_training(source: str, fields: dict[str, Any]) -> tuple[PreTrainedModel, bool]:
    """
    Load a model from a folder or a Hub name, and tell whether the folder has only its configuration, so that all
    weights are new. Missing weights are initialised.
    """
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
            return found.from_config(config), True
        weights = {"dtype": torch.float32, "ignore_mismatched_sizes": True}
        return found.from_pretrained(source, config=config, **weights), False
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
