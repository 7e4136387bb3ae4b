"""Compute IoU, Boundary IoU and BF1 of label maps from sums of per-image counts."""

from .counts import Counts, CountSettings, count_image, count_images
from .scores import ClassScores, SegmentScores, class_scores, score, segment_scores


__all__ = [
    "ClassScores",
    "CountSettings",
    "Counts",
    "SegmentScores",
    "class_scores",
    "count_image",
    "count_images",
    "score",
    "segment_scores",
]
