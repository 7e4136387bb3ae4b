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
"""From class and mask queries, or logits of each class, to label maps, at any size and in bounded memory"""

from collections.abc import Iterator

import torch


# Values in a band of intermediate results: few enough for caches and small machines, enough to keep the kernels busy.
BAND_VALUES = 2_000_000
# Ways to read query models (MaskFormer, section 3.4), and the minimum class probability of a query for the second.
INFERENCES, QUERY_THRESHOLD = ("semantic", "general"), 0.3


def bilinear_plan(
    output_size: int, valid_size: int, input_size: int, stride: float = 2
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Compute where an axis of the output reads the mask logits: output position `y` lies at
    `(y + 0.5) * valid_size / output_size / stride - 0.5` on the logits' axis, clamped to it.

    Args:
        output_size (`int`): Length of the output axis.
        valid_size (`int`): Length of the image within the model's padded input, in pixels.
        input_size (`int`): Length of the logits' axis.
        stride (`float`, *optional*, defaults to 2): Input pixels per position of the logits.

    Returns:
        `tuple(torch.Tensor)`: lower index, upper index and weight of the upper, each of shape `(output_size,)`.
    """
    position = (torch.arange(output_size, dtype=torch.float64) + 0.5) * (valid_size / output_size / stride) - 0.5
    position = position.clamp(0, input_size - 1)
    lower = position.floor()
    weight = (position - lower).float()
    lower = lower.long()
    upper = (lower + 1).clamp(max=input_size - 1)
    return lower, upper, weight


def double(values: torch.Tensor, dim: int) -> torch.Tensor:
    """
    Interpolate to two output positions per input position, as `bilinear_plan` would: each lies a quarter of the way
    from an input position to the next.

    Args:
        values (`torch.Tensor`): Values of any shape.
        dim (`int`): The axis to double.

    Returns:
        `torch.Tensor`: Values, twice as many along `dim`.
    """
    length = values.shape[dim]
    doubled = values.new_empty(*values.shape[:dim], 2 * length, *values.shape[dim + 1 :])
    doubled.select(dim, 0).copy_(values.select(dim, 0))
    doubled.select(dim, -1).copy_(values.select(dim, -1))
    if length > 1:
        here, following = values.narrow(dim, 0, length - 1), values.narrow(dim, 1, length - 1)
        between = doubled.narrow(dim, 1, 2 * length - 2).unflatten(dim, (length - 1, 2))
        torch.lerp(here, following, 0.25, out=between.select(dim + 1, 0))
        torch.lerp(here, following, 0.75, out=between.select(dim + 1, 1))
    return doubled


def resize_axis(
    values: torch.Tensor, dim: int, plan: tuple[torch.Tensor, torch.Tensor, torch.Tensor], start: int, doubles: bool
) -> torch.Tensor:
    """
    Interpolate bilinearly along one axis.

    Args:
        values (`torch.Tensor`): Values from the first to the last that the plan reads.
        dim (`int`): The axis.
        plan (`tuple[torch.Tensor]`): Plan for some output positions of the axis, see [`bilinear_plan`].
        start (`int`): The first of these output positions.
        doubles (`bool`): Whether the axis has two output positions per input position.

    Returns:
        `torch.Tensor`: Values, as many along `dim` as the plan has positions.
    """
    lower, upper, weight = plan
    first = int(lower[0])
    if doubles:
        return double(values, dim).narrow(dim, start - 2 * first, len(lower))
    weight = weight.view(-1, *[1] * (values.ndim - 1 - dim)).to(values.device)
    lower, upper = (lower - first).to(values.device), (upper - first).to(values.device)
    return torch.lerp(values.index_select(dim, lower), values.index_select(dim, upper), weight)


def resized_bands(
    maps: torch.Tensor, target_size: tuple[int, int], valid_size: tuple[int, int], strides: tuple[float, float]
) -> Iterator[tuple[slice, torch.Tensor]]:
    """
    Resize maps bilinearly, in bands of rows.

    Args:
        maps (`torch.Tensor` of shape `(num_channels, height, width)`): Maps over the model's padded input.
        target_size (`tuple[int, int]`): Height and width of the resized maps.
        valid_size (`tuple[int, int]`): Height and width of the image within the model's padded input.
        strides (`tuple[float, float]`): Input pixels per position of the maps, down and to the right.

    Yields:
        `tuple`: the rows, and these rows of the resized maps, a float32 `torch.Tensor` of shape
        `(num_rows, target_width, num_channels)`, which may be overwritten.
    """
    num_channels, height, width = maps.shape
    row_plan = bilinear_plan(target_size[0], valid_size[0], height, strides[0])
    column_plan = bilinear_plan(target_size[1], valid_size[1], width, strides[1])
    doubles = [
        valid == target and stride == 2 for valid, target, stride in zip(valid_size, target_size, strides, strict=True)
    ]
    left, right = int(column_plan[0][0]), int(column_plan[1][-1])
    rows_per_band = max(1, BAND_VALUES // (num_channels * max(target_size[1], width)))
    for start in range(0, target_size[0], rows_per_band):
        rows = slice(start, start + rows_per_band)
        top, bottom, weight = (values[rows] for values in row_plan)
        band = maps[:, int(top[0]) : int(bottom[-1]) + 1, left : right + 1].permute(1, 2, 0).contiguous().float()
        band = resize_axis(band, 0, (top, bottom, weight), start, doubles[0])
        yield rows, resize_axis(band, 1, column_plan, 0, doubles[1])


def combine_queries(class_probabilities: torch.Tensor, mask_probabilities: torch.Tensor) -> torch.Tensor:
    """
    Compute the scores of each class: the sum over queries of class probability times mask probability (MaskFormer,
    section 3.4).

    Args:
        class_probabilities (`torch.Tensor` of shape `(num_queries, num_labels)`):
            Class probabilities without the "no object" column.
        mask_probabilities (`torch.Tensor` of shape `(height, width, num_queries)`):
            Mask probabilities with the queries last.

    Returns:
        `torch.Tensor` of shape `(height, num_labels, width)`.
    """
    # One product per row with the labels first is several times as fast as a single product with few columns.
    rows_of_probabilities = class_probabilities.T.expand(len(mask_probabilities), -1, -1)
    return torch.bmm(rows_of_probabilities, mask_probabilities.transpose(1, 2))


def semantic_scores(class_queries_logits: torch.Tensor, masks_queries_logits: torch.Tensor) -> torch.Tensor:
    """
    Compute the scores of each class at the resolution of the mask logits.

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
    stride: float | tuple[float, float] = 2,
    return_scores: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    Read the label map of one image at its own size. The mask logits are resized once, bilinearly, in bands of rows;
    neither all queries nor all classes exist at the target size, unless the scores are requested.

    Args:
        class_queries_logits (`torch.Tensor` of shape `(num_queries, num_labels + 1)`):
            Class logits; the last column is "no object".
        masks_queries_logits (`torch.Tensor` of shape `(num_queries, height, width)`): Mask logits.
        target_size (`tuple[int, int]`): Height and width of the label map.
        valid_size (`tuple[int, int]`): Height and width of the image within the model's padded input.
        stride (`float` or `tuple[float, float]`, *optional*, defaults to 2):
            Input pixels per position of the mask logits; a tuple gives them down and to the right.
        return_scores (`bool`, *optional*, defaults to `False`): Whether to return the scores.

    Returns:
        `tuple`: the label map, an int64 `torch.Tensor` of shape `(target_height, target_width)`, and the scores, a
        float32 `torch.Tensor` of shape `(num_labels, target_height, target_width)`, or `None`.
    """
    device = masks_queries_logits.device
    class_probabilities = class_queries_logits.float().softmax(dim=-1)[:, :-1]
    label_map = torch.empty(target_size, dtype=torch.int64, device=device)
    scores = torch.empty(class_probabilities.shape[1], *target_size, device=device) if return_scores else None
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    for rows, band in resized_bands(masks_queries_logits, target_size, valid_size, strides):
        band_scores = combine_queries(class_probabilities, band.sigmoid_())
        label_map[rows] = band_scores.max(dim=1).indices
        if scores is not None:
            scores[:, rows] = band_scores.transpose(0, 1)
    return label_map, scores


@torch.no_grad()
def read_general_map(
    class_queries_logits: torch.Tensor,
    masks_queries_logits: torch.Tensor,
    target_size: tuple[int, int],
    valid_size: tuple[int, int],
    stride: float | tuple[float, float] = 2,
    threshold: float = QUERY_THRESHOLD,
    ignore_index: int = 255,
) -> torch.Tensor:
    """
    Read the label map of one image by general inference (MaskFormer, section 3.4): each pixel gets the class of the
    query with the largest product of class and mask probability. Memory is bounded as in [`read_semantic_map`].

    Args:
        class_queries_logits (`torch.Tensor` of shape `(num_queries, num_labels + 1)`):
            Class logits; the last column is "no object".
        masks_queries_logits (`torch.Tensor` of shape `(num_queries, height, width)`): Mask logits.
        target_size (`tuple[int, int]`): Height and width of the label map.
        valid_size (`tuple[int, int]`): Height and width of the image within the model's padded input.
        stride (`float` or `tuple[float, float]`, *optional*, defaults to 2):
            Input pixels per position of the mask logits; a tuple gives them down and to the right.
        threshold (`float`, *optional*, defaults to 0.3):
            Queries whose most likely class has a lower probability are left out (MaskFormer, Table VII), and so are
            those whose class is "no object".
        ignore_index (`int`, *optional*, defaults to 255): Label of all pixels if no query is left.

    Returns:
        `torch.Tensor` of shape `(target_height, target_width)`: int64.
    """
    confidence, classes = class_queries_logits.float().softmax(dim=-1).max(dim=-1)
    kept = (classes < class_queries_logits.shape[1] - 1) & (confidence > threshold)
    label_map = torch.full(target_size, ignore_index, dtype=torch.int64, device=masks_queries_logits.device)
    if not kept.any():
        return label_map
    confidence, classes = confidence[kept], classes[kept]
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    for rows, band in resized_bands(masks_queries_logits[kept], target_size, valid_size, strides):
        label_map[rows] = classes[(band.sigmoid_() * confidence).max(dim=-1).indices]
    return label_map


@torch.no_grad()
def read_logits_map(
    logits: torch.Tensor,
    target_size: tuple[int, int],
    valid_size: tuple[int, int],
    stride: float | tuple[float, float],
    return_scores: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    Read the label map of one image at its own size from logits of each class, which are resized once, bilinearly, in
    bands of rows.

    Args:
        logits (`torch.Tensor` of shape `(num_labels, height, width)`): Logits over the model's padded input.
        target_size (`tuple[int, int]`): Height and width of the label map.
        valid_size (`tuple[int, int]`): Height and width of the image within the model's padded input.
        stride (`float` or `tuple[float, float]`): Input pixels per position of the logits, both or (down, right).
        return_scores (`bool`, *optional*, defaults to `False`): Whether to return the softmax scores.

    Returns:
        `tuple`: the label map, an int64 `torch.Tensor` of shape `(target_height, target_width)`, and the scores, a
        float32 `torch.Tensor` of shape `(num_labels, target_height, target_width)`, or `None`.
    """
    label_map = torch.empty(target_size, dtype=torch.int64, device=logits.device)
    scores = torch.empty(len(logits), *target_size, device=logits.device) if return_scores else None
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    for rows, band in resized_bands(logits, target_size, valid_size, strides):
        label_map[rows] = band.max(dim=-1).indices
        if scores is not None:
            scores[:, rows] = band.softmax(dim=-1).permute(2, 0, 1)
    return label_map, scores


__all__ = [
    "INFERENCES",
    "QUERY_THRESHOLD",
    "bilinear_plan",
    "combine_queries",
    "read_general_map",
    "read_logits_map",
    "read_semantic_map",
    "resized_bands",
    "semantic_scores",
]
