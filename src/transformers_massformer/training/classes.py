"""Class names of a model, and new classes learned from pseudo-labels (paper, section 4.3)."""

import copy
import re
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ..inference.loading import auto_class, class_names
from ..models.modeling_massformer import MaSSFormerForSemanticSegmentation
from ..utils.names import are_placeholders, check_names, find_name, list_names, match_names


logger = logging.get_logger(__name__)

# Class from whose pixels new classes are cut, unless it is missing.
OTHERS = "others"
# Weights of a SeMask backbone with a row per class, also where the backbone has more classes than the model.
SEMANTIC_ROWS = re.compile(r"\.semantic_layer\.blocks\.\d+\.[qk]_proj\.")


class LabelSetting(StrEnum):
    """Use of pseudo-labels: the trained rows of the paper's Table 3."""

    # All classes; edges of pseudo-labels are suppressed (Eq. 7).
    reweighted = "reweighted"
    # All classes; all edges are emphasised.
    unweighted = "unweighted"
    # Pseudo-labels alone; all other pixels are "others".
    alone = "alone"


def label_names(labels: Sequence[str]) -> dict[str, Any]:
    """Return the configuration fields `id2label` and `label2id` for these classes."""
    id2label = dict(enumerate(labels))
    return {"id2label": id2label, "label2id": {label: index for index, label in id2label.items()}}


def config_with_classes(config: PreTrainedConfig, names: Sequence[str]) -> Any:
    """
    Return a copy of a configuration with other classes.

    Raises:
        StrictDataclassError: If the model cannot have this many classes.
    """
    old, changed = class_names(config), copy.deepcopy(config)
    if hasattr(changed, "pseudo_label_classes"):
        places = match_names(old, names, "the model", "the new classes")
        kept = [places[index] for index in changed.pseudo_label_classes]
        changed.pseudo_label_classes = sorted(index for index in kept if index is not None)
    changed.id2label, changed.label2id = label_names(names).values()
    backbone = getattr(changed, "backbone_config", None)
    if hasattr(backbone, "num_semantic_labels"):
        backbone.num_semantic_labels = max(backbone.num_semantic_labels, len(names))
    # Built again because assignments are not validated.
    return type(config).from_dict(changed.to_dict())


def class_dimensions(config: PreTrainedConfig) -> dict[str, list[int]]:
    """Return the dimensions of every weight, by its name, along which it has one entry per class."""
    names = [f"class {index}" for index in range(len(class_names(config)))]
    other = names[:-1] if len(names) > 1 else [*names, "another class"]
    shapes = []
    for labels in (names, other):
        probe = copy.deepcopy(config)
        if hasattr(probe, "pseudo_label_classes"):
            probe.pseudo_label_classes = []
        probe.id2label, probe.label2id = label_names(labels).values()
        with torch.device("meta"):
            shapes.append(
                {name: value.shape for name, value in auto_class(probe).from_config(probe).state_dict().items()}
            )
    return {
        name: [axis for axis, side in enumerate(shape) if side != shapes[1][name][axis]]
        for name, shape in shapes[0].items()
    }


def with_entries(old: torch.Tensor, new: torch.Tensor, axis: int, places: Sequence[int | None], num_old: int):
    """
    Return a weight whose entries along an axis follow their classes. New classes have the entries of `new`; what
    follows the classes, such as the entry of "no object", is kept.

    Args:
        old (`torch.Tensor`): The weight, with `num_old` classes.
        new (`torch.Tensor`): The initialised weight, with `len(places)` classes along this axis.
        axis (`int`): The axis.
        places (`Sequence[int | None]`): The id in `old` of each class, `None` for new ones.
        num_old (`int`): Number of classes in `old`.
    """
    old, entries = old.movedim(axis, 0), new.movedim(axis, 0).clone()
    for index, place in enumerate(places):
        if place is not None:
            entries[index] = old[place]
    tail = min(len(old) - num_old, len(entries) - len(places))
    if tail > 0:
        entries[-tail:] = old[-tail:]
    return entries.movedim(0, axis)


def initial_rows(name: str, new: torch.Tensor, old: torch.Tensor, num_old: int) -> torch.Tensor:
    """Return the rows of a semantic layer from which new classes start."""
    # Zero keys leave the attention unchanged; all else, such as the semantic map, starts from a new model's.
    rows = torch.zeros_like(new) if ".k_proj." in name else new.clone()
    if len(old) > num_old:
        # The backbone has rows to spare.
        rows[: len(old)] = old[: len(rows)]
    return rows


def follow_names(model: PreTrainedModel, names: Sequence[str], new: Collection[str] | None = ()) -> PreTrainedModel:
    """
    Return a model with the given classes in the given order. All weights that belong to a class follow its name: rows
    of the class head, of pixel classifiers, of class embeddings, and of the semantic layers of a SeMask backbone.

    Args:
        model (`PreTrainedModel`): A segmentation model. If it has these classes already, it is returned with the
            given spelling of their names; otherwise it is not modified.
        names (`Sequence[str]`): Names of the classes in the order of their ids. Classes of the model that are missing
            here are dropped.
        new (`Collection[str]`, *optional*): Names of classes that the model may lack; their weights are initialised as
            in a new model. `None` stands for any.

    Returns:
        `PreTrainedModel`: A model in the same mode.

    Raises:
        ValueError: If the model lacks a class that is not declared as new, or names do not fit together.
        StrictDataclassError: If there are more classes than queries.
    """
    old, names = class_names(model.config), check_names(names, "The classes to train")
    places = match_names(names, old, "the classes to train", "the model")
    missing = [name for name, place in zip(names, places, strict=True) if place is None]
    if new is not None and (undeclared := [name for name in missing if find_name(name, list(new)) is None]):
        hint = (
            "its classes have no names: write them into id2label of its config.json. " if are_placeholders(old) else ""
        )
        raise ValueError(
            f"The model has no class {', '.join(undeclared)}; {hint}it has {list_names(old)}; the classes to train "
            f"are {list_names(names)}. Weights follow names. If a class was renamed, correct id2label in the model's "
            "config.json; if it is new, declare it with --add_class, or pass --new_classes to start every class that "
            "the model lacks from new weights."
        )
    if places == list(range(len(old))):
        model.config.id2label, model.config.label2id = label_names(names).values()
        return model
    report_changes(names, old, places)
    grown = auto_class(model.config).from_config(config_with_classes(model.config, names)).to(model.dtype)
    axes, kept, weights = class_dimensions(model.config), dict(model.state_dict()), grown.state_dict()
    for name, value in weights.items():
        if SEMANTIC_ROWS.search(name):
            kept[name] = with_entries(kept[name], initial_rows(name, value, kept[name], len(old)), 0, places, len(old))
            continue
        for axis in axes[name]:
            kept[name] = with_entries(kept[name], value, axis, places, len(old))
    grown.load_state_dict(kept)
    return grown.train(model.training)


def report_changes(names: Sequence[str], old: Sequence[str], places: Sequence[int | None]):
    """Log which classes of a model move, start from new weights, or are dropped."""
    moved = [
        f"{name} ({place} -> {index})"
        for index, (name, place) in enumerate(zip(names, places, strict=True))
        if place not in (None, index)
    ]
    added = [name for name, place in zip(names, places, strict=True) if place is None]
    dropped = [name for index, name in enumerate(old) if index not in places]
    for what, listed in (
        ("The model's classes follow the names of the data", moved),
        ("Classes with new weights", added),
        ("Classes of the model that are dropped", dropped),
    ):
        if listed:
            logger.warning(f"{what}: {', '.join(listed)}.")


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
        if find_name(name, [*old, *names[:index]]) is not None:
            raise ValueError(f"The class {name!r} exists already: the model has {', '.join(old)}. Use another name.")
    grown: Any = follow_names(model, [*old, *names], new=names)
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
    labels = class_names(model.config)
    for index, name in classes.items():
        if find_name(name, labels) != index:
            raise ValueError(
                f"The pseudo-labels have class {index} {name}, the model {list_names(labels)}. Name the new classes "
                "with --add_class, in the order in which they were labelled, and start from a model without them."
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
    others = find_name(OTHERS, class_names(config))
    distrusted = sorted({*config.pseudo_label_classes, *classes, *([] if others is None else [others])})
    config.pseudo_label_classes = distrusted if setting == LabelSetting.reweighted else []
