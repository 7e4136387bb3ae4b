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
"""From class and mask queries to semantic maps, at any size and in bounded memory"""

import torch


# Values in a band of intermediate results: few, for caches and small machines; enough to keep the kernels busy.
BAND_VALUES = 4_000_000


def bilinear_plan(
    output_size: int, valid_size: int, input_size: int, stride: int = 2, device: torch.device | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Where an axis of the output reads the mask logits: output position `y` lies at
    `(y + 0.5) * valid_size / output_size / stride - 0.5` on the logits' axis, clamped to it.

    Args:
        output_size (`int`): Length of the output axis.
        valid_size (`int`): The part of the model's input axis that shows the image, in pixels.
        input_size (`int`): Length of the logits' axis.
        stride (`int`, *optional*, defaults to 2): Input pixels per position of the logits.
        device (`torch.device`, *optional*): Where to put the plan.

    Returns:
        `tuple(torch.Tensor)`: lower and upper index and the weight of the upper, each of shape `(output_size,)`.
    """
    position = (torch.arange(output_size, dtype=torch.float64) + 0.5) * (valid_size / output_size / stride) - 0.5
    position = position.clamp(0, input_size - 1)
    lower = position.floor()
    weight = (position - lower).float()
    lower = lower.long()
    upper = (lower + 1).clamp(max=input_size - 1)
    return lower.to(device), upper.to(device), weight.to(device)


def double_columns(rows: torch.Tensor) -> torch.Tensor:
    """
    What `bilinear_plan` comes to where there are two output columns per input column: each lies a quarter of the way
    from an input column to the next.

    Args:
        rows (`torch.Tensor` of shape `(height, width, channels)`): Rows of a map.

    Returns:
        `torch.Tensor` of shape `(height, 2 * width, channels)`.
    """
    height, width, num_channels = rows.shape
    doubled = rows.new_empty(height, 2 * width, num_channels)
    doubled[:, 0], doubled[:, -1] = rows[:, 0], rows[:, -1]
    torch.lerp(rows[:, :-1], rows[:, 1:], 0.25, out=doubled[:, 1:-1:2])
    torch.lerp(rows[:, :-1], rows[:, 1:], 0.75, out=doubled[:, 2:-1:2])
    return doubled


def combine_queries(class_probabilities: torch.Tensor, mask_logits: torch.Tensor) -> torch.Tensor:
    """
    Per-class scores: the sum over queries of class probability times mask probability (MaskFormer, section 3.4).

    Args:
        class_probabilities (`torch.Tensor` of shape `(num_queries, num_labels)`): Without the "no object" column.
        mask_logits (`torch.Tensor` of shape `(..., num_queries)`): Queries last, so that this is one matrix product.

    Returns:
        `torch.Tensor` of shape `(..., num_labels)`.
    """
    return mask_logits.sigmoid() @ class_probabilities


def semantic_scores(class_queries_logits: torch.Tensor, masks_queries_logits: torch.Tensor) -> torch.Tensor:
    """
    Per-class scores at the resolution of the mask logits.

    Args:
        class_queries_logits (`torch.Tensor` of shape `(batch_size, num_queries, num_labels + 1)`):
            Class logits; the last column is "no object".
        masks_queries_logits (`torch.Tensor` of shape `(batch_size, num_queries, height, width)`): Mask logits.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_labels, height, width)`.
    """
    class_probabilities = class_queries_logits.softmax(dim=-1)[..., :-1]
    return torch.einsum("bqc,bqhw->bchw", class_probabilities, masks_queries_logits.sigmoid())


@torch.no_grad()
def read_semantic_map(
    class_queries_logits: torch.Tensor,
    masks_queries_logits: torch.Tensor,
    target_size: tuple[int, int],
    valid_size: tuple[int, int],
    stride: int = 2,
    return_scores: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    The label map of one image at its own size. The mask logits are resized once, bilinearly, in bands of rows; neither
    all queries nor all classes exist at the target size (unless the scores are asked for).

    Args:
        class_queries_logits (`torch.Tensor` of shape `(num_queries, num_labels + 1)`):
            Class logits; the last column is "no object".
        masks_queries_logits (`torch.Tensor` of shape `(num_queries, height, width)`): Mask logits.
        target_size (`tuple[int, int]`): Height and width of the label map.
        valid_size (`tuple[int, int]`): Height and width of the image within the model's padded input.
        stride (`int`, *optional*, defaults to 2): Input pixels per position of the mask logits.
        return_scores (`bool`, *optional*, defaults to `False`): Whether to return the scores too.

    Returns:
        `tuple`: the label map, an int64 `torch.Tensor` of shape `(target_height, target_width)`, and the scores, a
        float32 `torch.Tensor` of shape `(num_labels, target_height, target_width)`, or `None`.
    """
    device = masks_queries_logits.device
    num_queries, height, width = masks_queries_logits.shape
    class_probabilities = class_queries_logits.float().softmax(dim=-1)[:, :-1]
    top, bottom, row_weight = bilinear_plan(target_size[0], valid_size[0], height, stride, device)
    left, right, column_weight = bilinear_plan(target_size[1], valid_size[1], width, stride, device)
    row_weight, column_weight = row_weight[:, None, None], column_weight[:, None]

    label_map = torch.empty(target_size, dtype=torch.int64, device=device)
    scores = torch.empty(class_probabilities.shape[1], *target_size, device=device) if return_scores else None
    rows_per_band = max(1, BAND_VALUES // (num_queries * max(target_size[1], width)))
    for start in range(0, target_size[0], rows_per_band):
        rows = slice(start, start + rows_per_band)
        first, last = top[start], bottom[rows][-1]
        band = masks_queries_logits[:, first : last + 1].permute(1, 2, 0).contiguous().float()
        band = torch.lerp(band[top[rows] - first], band[bottom[rows] - first], row_weight[rows])
        if valid_size[1] == target_size[1] and stride == 2:
            band = double_columns(band)[:, : target_size[1]]
        else:
            band = torch.lerp(band[:, left], band[:, right], column_weight)
        band_scores = combine_queries(class_probabilities, band)
        label_map[rows] = band_scores.argmax(dim=-1)
        if scores is not None:
            scores[:, rows] = band_scores.permute(2, 0, 1)
    return label_map, scores


__all__ = ["bilinear_plan", "combine_queries", "read_semantic_map", "semantic_scores"]
