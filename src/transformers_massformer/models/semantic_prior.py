# Copyright 2026 The transformers-massformer authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Semantic priors of a backbone with semantic layers: their sum, and its loss (SeMask, sections 3.3 and 3.4)"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def sum_semantic_maps(semantic_maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """
    Sum the semantic maps at the size of the first: the map of stage s is doubled s times bilinearly. This is the
    semantic decoder, which has no weights (release).

    Args:
        semantic_maps (sequence of `torch.Tensor` of shape `(batch_size, num_labels, height / s, width / s)`):
            The map of each stage.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_labels, height / 4, width / 4)`.
    """
    size = semantic_maps[0].shape[-2:]
    total = semantic_maps[0]
    for stage, semantic_map in enumerate(semantic_maps[1:], start=1):
        total = total + double_and_fit(semantic_map, stage, size)
    return total


def double_and_fit(feature_map: torch.Tensor, times: int, size: Sequence[int]) -> torch.Tensor:
    """Double a map `times` times, then resize it to `size` if odd sizes made it differ; all bilinearly."""
    for _ in range(times):
        feature_map = F.interpolate(feature_map, scale_factor=2, mode="bilinear", align_corners=False)
    if feature_map.shape[-2:] != tuple(size):
        feature_map = F.interpolate(feature_map, size=list(size), mode="bilinear", align_corners=False)
    return feature_map


def pixel_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, ignore_index: int, hard_pixels_per_image: int | None = None
) -> torch.Tensor:
    """
    Compute the cross-entropy of per-pixel logits at the size of the labels in float32, averaged over all pixels; those
    without a class count as 0 (release).

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels, height, width)`): Logits at any size.
        labels (`torch.Tensor` of shape `(batch_size, label_height, label_width)`): Class of each pixel.
        ignore_index (`int`): Label of pixels without a class.
        hard_pixels_per_image (`int`, *optional*):
            Number of pixels per image to count: those with the highest loss in the batch. The rest counts as 0
            (release).

    Returns:
        `torch.Tensor`: A scalar.

    Raises:
        ValueError: If a label is neither a class nor `ignore_index`.
    """
    present = labels.unique()
    invalid = present[((present < 0) | (present >= logits.shape[1])) & (present != ignore_index)]
    if invalid.numel():
        raise ValueError(
            f"`labels` contains values outside the classes: {invalid.tolist()}. The logits have {logits.shape[1]} "
            f"classes, so labels must be 0 to {logits.shape[1] - 1}, or {ignore_index} for ignored pixels. The number "
            "of classes is `num_labels`, and `num_semantic_labels` of the backbone for semantic maps."
        )
    logits = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    losses = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none").flatten()
    if hard_pixels_per_image is None:
        return losses.mean()
    num_hard = min(hard_pixels_per_image * len(labels), losses.numel())
    return losses.topk(num_hard).values.sum() / losses.numel()


def semantic_prior_loss(
    semantic_maps: Sequence[torch.Tensor], labels: torch.Tensor, ignore_index: int
) -> torch.Tensor:
    """
    Compute the cross-entropy of the summed semantic maps (Eq. 4), a scalar; see [`sum_semantic_maps`] and
    [`pixel_cross_entropy`].
    """
    return pixel_cross_entropy(sum_semantic_maps(semantic_maps), labels, ignore_index)


__all__ = ["pixel_cross_entropy", "semantic_prior_loss", "sum_semantic_maps"]
