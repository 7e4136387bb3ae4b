"""IoU, Boundary IoU and BF1 of label maps, as sums of per-image counts."""

from .counts import Counts, CountSettings, count_image, count_images
from .scores import ClassScores, class_scores, score


__all__ = ["ClassScores", "CountSettings", "Counts", "class_scores", "count_image", "count_images", "score"]
