"""Compute IoU, Boundary IoU, BF1 and accuracy from per-image counts."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from .counts import Counts, CountSettings


@dataclass(frozen=True)
class ClassScores:
    """
    Scores of each class: float64 `torch.Tensor`s of shape `(..., num_labels)` between 0 and 1, NaN for absent classes.
    A class is absent if neither prediction nor label contain it; for accuracy, if the label does not contain it.

    Attributes:
        iou: Intersection over union.
        boundary_iou: Boundary IoU (paper, Eq. 8; release).
        bf1: Boundary F1 score (paper, Eq. 9).
        accuracy: Fraction of the class's pixels that are predicted correctly.
    """

    iou: torch.Tensor
    boundary_iou: torch.Tensor
    bf1: torch.Tensor
    accuracy: torch.Tensor


# IoU above which two segments match; a segment cannot match two others at this threshold.
MATCHED_IOU = 0.5


def divide(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """Divide in float64; 0 / 0 is NaN."""
    return numerator.double() / denominator.double()


def boundary_f1(counts: Counts) -> torch.Tensor:
    """
    Compute 2 P R / (P + R) from precision and recall of the boundary pixels (paper, Eq. 9): 0 if only one of the two
    maps has boundary pixels of the class, or if none match; NaN if neither has any.
    """
    precision = divide(counts.matched_prediction_boundary, counts.prediction_boundary).nan_to_num(0)
    recall = divide(counts.matched_label_boundary, counts.label_boundary).nan_to_num(0)
    score = divide(2 * precision * recall, precision + recall).nan_to_num(0)
    return score.masked_fill(counts.prediction_boundary + counts.label_boundary == 0, math.nan)


@dataclass(frozen=True)
class SegmentScores:
    """
    Panoptic quality of semantic segmentation, where a class in an image is one segment (PQ^St; MaskFormer, section
    4), and its two factors for each class: float64 `torch.Tensor`s of shape `(num_labels,)` between 0 and 1, NaN for
    classes absent from all images.

    Attributes:
        pq_st: Panoptic quality: sum of the IoU of the matched segments, divided by their number plus half the number
            of missed and false segments.
        sq_st: Segmentation quality: mean IoU of the matched segments.
        rq_st: Recognition quality: F1 score of matching segments.
    """

    pq_st: torch.Tensor
    sq_st: torch.Tensor
    rq_st: torch.Tensor


def segment_scores(counts: Counts) -> SegmentScores:
    """
    Compute PQ^St of a data set. A segment is matched if its IoU is above 0.5.

    Args:
        counts ([`Counts`]): Counts of each image, of shape `(num_images, num_labels)`.
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
    Compute the scores of each class.

    Args:
        counts ([`Counts`]): Counts of one image, of several images, or their sum.
    """
    return ClassScores(
        iou=divide(counts.intersection, counts.union),
        boundary_iou=divide(counts.boundary_intersection, counts.boundary_union),
        bf1=boundary_f1(counts),
        accuracy=divide(counts.intersection, counts.label_area),
    )


def mean_of_present(values: torch.Tensor) -> float:
    """Average the values that are not NaN; NaN if there are none."""
    return values.nanmean().item()


def mean_over_images(values: torch.Tensor) -> float:
    """
    Average a value per image over those that are not NaN, exactly rounded: images come in any order from several
    processes.
    """
    present = values[~values.isnan()].tolist()
    return math.fsum(present) / len(present) if present else math.nan


def score(counts: Counts, settings: CountSettings | None = None) -> dict[str, Any]:
    """
    Compute the scores of a data set.

    Scores of the data set use counts summed over its images (paper; release). Image scores are computed image by
    image: the mean over the classes of each image, then the mean over images.

    Args:
        counts ([`Counts`]): Counts of each image, of shape `(num_images, num_labels)`.
        settings ([`CountSettings`], *optional*): Settings of the counts, to include in the result.

    Returns:
        `dict`: `mean_iou`, `mean_boundary_iou`, `mean_bf1`, `mean_accuracy`, `overall_accuracy` and, averaged over
        images, `image_mean_iou`, `image_mean_boundary_iou`, `image_mean_bf1` as floats; `per_category_iou`,
        `per_category_boundary_iou`, `per_category_bf1`, `per_category_accuracy` as lists of `num_labels` floats, NaN
        for absent classes; `mean_pq_st` and `per_category_pq_st`, see [`segment_scores`]; `absent_categories`, the
        ids of classes in neither predictions nor labels; `num_images`; `settings`, if passed.
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
