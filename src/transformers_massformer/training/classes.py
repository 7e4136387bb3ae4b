"""The classes of a model, and new ones that it is to learn from pseudo-labels (paper, section 4.3)."""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import torch
from transformers import PreTrainedModel

from ..models.configuration_massformer import MaSSFormerConfig
from ..models.modeling_massformer import MaSSFormerForSemanticSegmentation


class LabelSetting(StrEnum):
    """How pseudo-labels are used: the trained rows of the paper's Table 3."""

    # All classes, edges of pseudo-labels suppressed (Eq. 7).
    reweighted = "reweighted"
    # All classes, edges of all of them emphasised.
    unweighted = "unweighted"
    # The pseudo-labels alone; everything else is "others".
    alone = "alone"


# The weights of a SeMask backbone that have a row for each class.
SEMANTIC_PROJECTION = re.compile(r"\.semantic_layer\.blocks\.\d+\.[qk]_proj\.")


def label_names(labels: Sequence[str]) -> dict[str, Any]:
    """The fields of a configuration that name its classes."""
    id2label = dict(enumerate(labels))
    return {"id2label": id2label, "label2id": {label: index for index, label in id2label.items()}}


def class_names(model: PreTrainedModel) -> list[str]:
    """Names of a model's classes, in the order of their ids."""
    return [label for _, label in sorted((model.config.id2label or {}).items())]


def add_classes(model: PreTrainedModel, names: Sequence[str]) -> MaSSFormerForSemanticSegmentation:
    """
    A model that knows more classes. All weights are kept; the class head gets new rows, which start as in a new model,
    between those of the old classes and that of "no object". Semantic maps of a SeMask backbone get new channels,
    which change nothing else.

    Args:
        model (`PreTrainedModel`): A MaSSFormer; it is left as it is.
        names (`Sequence[str]`): The new classes, whose ids follow the old ones.

    Returns:
        [`MaSSFormerForSemanticSegmentation`]: The new model, in evaluation mode like one that is loaded.

    Raises:
        ValueError: If a class is known already or named twice, or the model is no MaSSFormer.
        StrictDataclassError: If there are more classes than queries.
    """
    if not isinstance(model, MaSSFormerForSemanticSegmentation):
        raise ValueError(f"New classes are for MaSSFormer; a {type(model).__name__} is trained on all its classes.")
    old = class_names(model)
    for index, name in enumerate(names):
        if name in old or name in names[:index]:
            raise ValueError(f"The class {name!r} is known already: the model has {', '.join(old)}. Name another.")
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
        if SEMANTIC_PROJECTION.search(name) and len(value) > len(kept[name]):
            # Keys of zero leave the attention as it was; queries, which are the semantic map, start anew.
            rows = torch.zeros_like(value) if ".k_proj." in name else value.clone()
            rows[: len(kept[name])] = kept[name]
            kept[name] = rows
    grown.load_state_dict(kept)
    return grown.eval()


def check_new_classes(model: PreTrainedModel, classes: Mapping[int, str]):
    """
    Raises:
        ValueError: If the model calls one of the labelled classes by another id, or is no MaSSFormer.
    """
    if not isinstance(model, MaSSFormerForSemanticSegmentation):
        raise ValueError(f"Pseudo-labels are for MaSSFormer, whose loss knows them; not for a {type(model).__name__}.")
    labels = dict(enumerate(class_names(model)))
    for index, name in classes.items():
        if labels.get(index) != name:
            known = ", ".join(f"{index} {label}" for index, label in labels.items())
            raise ValueError(
                f"The pseudo-labels have class {index} {name}, the model {known}. Name the new classes with "
                "--add_class, in the order in which they were labelled, and start from a model without them."
            )


def apply_setting(model: PreTrainedModel, setting: LabelSetting, classes: Sequence[int]):
    """
    Tells the model's loss which edges to distrust: those of pseudo-labelled classes, of which it may have been trained
    on some before, and of "others", out of which they are cut.

    Args:
        model (`PreTrainedModel`): A MaSSFormer; its configuration is changed.
        setting ([`LabelSetting`]): How pseudo-labels are used.
        classes (`Sequence[int]`): Ids of the classes that have them.
    """
    config = model.config
    distrusted = sorted({0, *config.pseudo_label_classes, *classes})
    config.pseudo_label_classes = distrusted if setting == LabelSetting.reweighted else []
