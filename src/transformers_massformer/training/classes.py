"""Class names of a model, and new classes learned from pseudo-labels (paper, section 4.3)."""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import torch
from transformers import PreTrainedModel

from ..inference.loading import class_names
from ..models.configuration_massformer import MaSSFormerConfig
from ..models.modeling_massformer import MaSSFormerForSemanticSegmentation


class LabelSetting(StrEnum):
    """Use of pseudo-labels: the trained rows of the paper's Table 3."""

    # All classes; edges of pseudo-labels are suppressed (Eq. 7).
    reweighted = "reweighted"
    # All classes; all edges are emphasised.
    unweighted = "unweighted"
    # Pseudo-labels alone; all other pixels are "others".
    alone = "alone"


# Weights with one row per class: of a SeMask backbone, and those that only training uses.
ROW_PER_CLASS = re.compile(r"\.semantic_layer\.blocks\.\d+\.[qk]_proj\.|^pixel_classifiers\.|^class_embeddings\.")


def label_names(labels: Sequence[str]) -> dict[str, Any]:
    """Return the configuration fields `id2label` and `label2id` for these classes."""
    id2label = dict(enumerate(labels))
    return {"id2label": id2label, "label2id": {label: index for index, label in id2label.items()}}


def add_classes(model: PreTrainedModel, names: Sequence[str]) -> MaSSFormerForSemanticSegmentation:
    """
    Return a copy of a model with additional classes.

    All weights are kept. The class head gets new rows, initialised as in a new model, between the rows of the
    existing classes and the row of "no object". Semantic maps of a SeMask backbone get new channels, which leave
    every other output unchanged.

    Args:
        model (`PreTrainedModel`): A MaSSFormer model; not modified.
        names (`Sequence[str]`): New class names; their ids follow the existing ones.

    Returns:
        [`MaSSFormerForSemanticSegmentation`]: The extended model, in evaluation mode like a loaded one.

    Raises:
        ValueError: If a class exists already or is named twice, or the model is not a MaSSFormer.
        StrictDataclassError: If there are more classes than queries.
    """
    if not isinstance(model, MaSSFormerForSemanticSegmentation):
        raise ValueError(
            f"Only MaSSFormer can be extended with new classes; train a {type(model).__name__} on all of its classes."
        )
    old = class_names(model.config)
    for index, name in enumerate(names):
        if name in old or name in names[:index]:
            raise ValueError(f"The class {name!r} exists already: the model has {', '.join(old)}. Use another name.")
    fields: dict[str, Any] = {**model.config.to_dict(), **label_names([*old, *names])}
    backbone_config = fields["backbone_config"]
    if "num_semantic_labels" in backbone_config:
        backbone_config["num_semantic_labels"] = max(backbone_config["num_semantic_labels"], len(old) + len(names))
    grown = MaSSFormerForSemanticSegmentation(MaSSFormerConfig(**fields)).to(model.dtype)
    weights, kept = grown.state_dict(), model.state_dict()
    for name in ("class_predictor.weight", "class_predictor.bias"):
        rows = weights[name].clone()
        rows[: len(old)], rows[-1] = kept[name][:-1], kept[name][-1]
        kept[name] = rows
    for name, value in weights.items():
        if ROW_PER_CLASS.search(name) and len(value) > len(kept[name]):
            # Zero keys leave the attention unchanged; all else, such as the semantic map, starts from a new model's.
            rows = torch.zeros_like(value) if ".k_proj." in name else value.clone()
            rows[: len(kept[name])] = kept[name]
            kept[name] = rows
    grown.load_state_dict(kept)
    return grown.eval()


def check_new_classes(model: PreTrainedModel, classes: Mapping[int, str]):
    """
    Check that a model has the classes of some pseudo-labels.

    Args:
        model (`PreTrainedModel`): The model to train.
        classes (`Mapping[int, str]`): Names of the pseudo-labelled classes by id.

    Raises:
        ValueError: If the model has another name for one of these ids, or is not a MaSSFormer.
    """
    if not isinstance(model, MaSSFormerForSemanticSegmentation):
        raise ValueError(
            f"Only MaSSFormer's loss supports pseudo-labels; a {type(model).__name__} cannot be trained on them."
        )
    labels = dict(enumerate(class_names(model.config)))
    for index, name in classes.items():
        if labels.get(index) != name:
            known = ", ".join(f"{index} {label}" for index, label in labels.items())
            raise ValueError(
                f"The pseudo-labels have class {index} {name}, the model {known}. Name the new classes with "
                "--add_class, in the order in which they were labelled, and start from a model without them."
            )


def apply_setting(model: PreTrainedModel, setting: LabelSetting, classes: Sequence[int]):
    """
    Set the classes whose edges the model's loss suppresses: the pseudo-labelled classes, including those of earlier
    trainings, and "others", out of which they are cut.

    Args:
        model (`PreTrainedModel`): A MaSSFormer model; its configuration is modified.
        setting ([`LabelSetting`]): Use of pseudo-labels.
        classes (`Sequence[int]`): Ids of the pseudo-labelled classes.
    """
    config = model.config
    distrusted = sorted({0, *config.pseudo_label_classes, *classes})
    config.pseudo_label_classes = distrusted if setting == LabelSetting.reweighted else []
