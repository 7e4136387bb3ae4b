"""From per-image counts to IoU, Boundary IoU, BF1 and accuracy."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from .counts import Counts, CountSettings


@dataclass(frozen=True)
class ClassScores:
    """
    Scores of each class, float64 `torch.Tensor`s of shape `(..., num_labels)` between 0 and 1, NaN where the class is
    absent: from prediction and label for the first three, from the label for accuracy.

    Attributes:
        iou: Intersection over union.
        boundary_iou: Boundary IoU (paper, Eq. 8; release).
        bf1: Boundary F1 score (paper, Eq. 9).
        accuracy: Share of the class's pixels that are found.
    """

    iou: torch.Tensor
    boundary_iou: torch.Tensor
    bf1: torch.Tensor
    accuracy: torch.Tensor


# Segments with more than this in common match; none can match two.
MATCHED_IOU = 0.5


def divide(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """Quotients in float64, NaN for 0 / 0."""
    return numerator.double() / denominator.double()


def boundary_f1(counts: Counts) -> torch.Tensor:
    """
    2 P R / (P + R) of precision and recall of the boundary pixels (paper, Eq. 9): 0 where only one of the two maps
    has boundary pixels of the class, or none match; NaN where neither has any.
    """
    precision = divide(counts.matched_prediction_boundary, counts.prediction_boundary).nan_to_num(0)
    recall = divide(counts.matched_label_boundary, counts.label_boundary).nan_to_num(0)
    score = divide(2 * precision * recall, precision + recall).nan_to_num(0)
    return score.masked_fill(counts.prediction_boundary + counts.label_boundary == 0, math.nan)


@dataclass(frozen=True)
class SegmentScores:
    """
    Panoptic quality of semantic segmentation, where a class in an image is one segment (PQ^St; MaskFormer, section
    4), and its two factors, of each class: float64 `torch.Tensor`s of shape `(num_labels,)` between 0 and 1, NaN
    where the class is in no image.

    Attributes:
        pq_st: Sum of the IoU of the segments found, divided by their number and half of those missed or invented.
        sq_st: Segmentation quality: mean IoU of the segments found.
        rq_st: Recognition quality: F1 score of finding them.
    """

    pq_st: torch.Tensor
    sq_st: torch.Tensor
    rq_st: torch.Tensor


def segment_scores(counts: Counts) -> SegmentScores:
    """
    PQ^St of a data set. A segment is found if its IoU is above 0.5.

    Args:
        counts ([`Counts`]): Of each image: shape `(num_images, num_labels)`.
    """
    iou = divide(counts.intersection, counts.union).nan_to_num(0)
    found = iou > MATCHED_IOU
    num_found = found.sum(dim=0)
    invented, missed = ((area > 0) & ~found for area in (counts.prediction_area, counts.label_area))
    num_segments = num_found + 0.5 * (invented.sum(dim=0) + missed.sum(dim=0))
    total = iou.where(found, 0).sum(dim=0)
    return SegmentScores(divide(total, num_segments), divide(total, num_found), divide(num_found, num_segments))


def class_scores(counts: Counts) -> ClassScores:
    """
    The scores of each class.

    Args:
        counts ([`Counts`]): Of one image, of several, or their sum.
    """
    return ClassScores(
        iou=divide(counts.intersection, counts.union),
        boundary_iou=divide(counts.boundary_intersection, counts.boundary_union),
        bf1=boundary_f1(counts),
        accuracy=divide(counts.intersection, counts.label_area),
    )


def mean_of_present(values: torch.Tensor) -> float:
    """The mean without what is NaN; NaN if nothing else is there."""
    return values.nanmean().item()


def mean_over_images(values: torch.Tensor) -> float:
    """The same of a value per image, exactly rounded: images may come in any order from several processes."""
    present = values[~values.isnan()].tolist()
    return math.fsum(present) / len(present) if present else math.nan


def score(counts: Counts, settings: CountSettings | None = None) -> dict[str, Any]:
    """
    The scores of a data set.

    Those of the data set come from counts summed over its images (the paper's; release). Those of images are computed
    image by image; a mean over classes of each, and of these the mean over images.

    Args:
        counts ([`Counts`]): Of each image: shape `(num_images, num_labels)`.
        settings ([`CountSettings`], *optional*): What they were counted with, to be named in the result.

    Returns:
        `dict`: `mean_iou`, `mean_boundary_iou`, `mean_bf1`, `mean_accuracy`, `overall_accuracy` and, over images,
        `image_mean_iou`, `image_mean_boundary_iou`, `image_mean_bf1` as floats; `per_category_iou`,
        `per_category_boundary_iou`, `per_category_bf1`, `per_category_accuracy` as lists of `num_labels` floats, NaN
        for absent classes; `mean_pq_st` and `per_category_pq_st`, see [`segment_scores`]; `absent_categories`, the
        ids of classes in neither predictions nor labels; `num_images`;
        `settings`.
    """
    total = counts.sum()
    of_data_set, of_images = class_scores(total), class_scores(counts)
    names = [field.name for field in dataclasses.fields(ClassScores)]
    result: dict[str, Any] = {f"mean_{name}": mean_of_present(getattr(of_data_set, name)) for name in names}
    result["overall_accuracy"] = divide(total.intersection.sum(), total.label_area.sum()).item()
    for name in ("iou", "boundary_iou", "bf1"):
        result[f"image_mean_{name}"] = mean_over_images(getattr(of_images, name).nanmean(dim=-1))
    for name in names:
        result[f"per_category_{name}"] = getattr(of_data_set, name).tolist()
    segments = segment_scores(counts)
    result["mean_pq_st"], result["per_category_pq_st"] = mean_of_present(segments.pq_st), segments.pq_st.tolist()
    result["absent_categories"] = (total.union == 0).nonzero().flatten().tolist()
    result["num_images"] = counts.intersection.shape[0]
    if settings is not None:
        result["settings"] = dataclasses.asdict(settings)
    return result
