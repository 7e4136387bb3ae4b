"""Batches of training samples in the form that each kind of model expects."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ..models.configuration_massformer import MaSSFormerConfig


# Model types trained on one binary mask per class of an image.
MASK_MODELS = ("eomt", "mask2former", "maskformer", "oneformer")
# Entries of a mixture's samples that say how far their labels are to be relied on; MaSSFormer's loss alone uses them.
QUALITY = ("coarse_edges", "annotated_classes")
STACKED = ("pixel_values", "labels", *QUALITY)


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack the tensors of training samples; evaluation photos and label maps, which differ in size, stay lists."""
    batch: dict[str, Any] = {name: [sample[name] for sample in samples] for name in samples[0]}
    return {name: torch.stack(values) if name in STACKED else values for name, values in batch.items()}


def collate_without_quality(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collate as [`collate`] does, without the entries on the quality of labels."""
    return {name: values for name, values in collate(samples).items() if name not in QUALITY}


def mask_collate(samples: Sequence[Mapping[str, Any]], ignore_index: int = 255) -> dict[str, Any]:
    """
    Convert training samples to the inputs of transformers' query models: one binary mask per class of each image.
    Samples for evaluation are returned as by [`collate`].
    """
    if "labels" not in samples[0]:
        return collate(samples)
    masks, classes = [], []
    for sample in samples:
        present = sample["labels"].unique()
        present = present[present != ignore_index]
        masks.append((sample["labels"] == present[:, None, None]).float())
        classes.append(present)
    pixel_values = torch.stack([sample["pixel_values"] for sample in samples])
    return {"pixel_values": pixel_values, "mask_labels": masks, "class_labels": classes}


def collate_for(model: PreTrainedModel) -> Callable:
    """Return the collate function for a model."""
    if model.config.model_type == MaSSFormerConfig.model_type:
        return collate
    return mask_collate if model.config.model_type in MASK_MODELS else collate_without_quality


def label_maps(inputs: Mapping[str, Any], ignore_index: int = 255) -> torch.Tensor:
    """
    Return the label maps of a batch in either form.

    Returns:
        `torch.Tensor` of shape `(batch_size, height, width)`: int64.
    """
    if "labels" in inputs:
        return inputs["labels"].long()
    maps = []
    for masks, classes in zip(inputs["mask_labels"], inputs["class_labels"], strict=True):
        label_map = torch.full(masks.shape[1:], ignore_index, dtype=torch.int64, device=masks.device)
        for mask, index in zip(masks, classes, strict=True):
            label_map[mask > 0] = index
        maps.append(label_map)
    return torch.stack(maps)
