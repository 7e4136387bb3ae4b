"""Scores as text, and as rows of tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


# Names of the scores in tables, as in the paper.
SCORES = {"iou": "mIoU", "boundary_iou": "BIoU", "bf1": "BF1"}


def format_score(name: str, value: float) -> str:
    """Format a score as in the paper's tables: percent, but BF1 as a fraction; a dash for absent classes."""
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if name == "bf1" else f"{100 * value:.2f}"


def class_table(title: str, labels: Sequence[str], scores: Mapping[str, Any]) -> list[list[str]]:
    """
    Return a header and a row in the form of the paper's Tables 6 and 7: three scores per class, here with their means
    first.

    Args:
        title (`str`): Name of the model, for the first column.
        labels (`Sequence[str]`): Names of the classes.
        scores (`Mapping[str, Any]`): Result of [`score`].
    """
    header, row = ["Method"], [title]
    header += [f"Mean {title}" for title in SCORES.values()]
    row += [format_score(name, scores[f"mean_{name}"]) for name in SCORES]
    for index, label in enumerate(labels):
        header += [f"{label.capitalize()} {'IoU' if name == 'iou' else title}" for name, title in SCORES.items()]
        row += [format_score(name, scores[f"per_category_{name}"][index]) for name in SCORES]
    return [header, row]


def score_rows(labels: Sequence[str], scores: Mapping[str, Any]) -> list[list[str]]:
    """Return a narrow table of the same scores: a header, the means, and one row per class."""
    rows = [["class", *SCORES.values()], ["mean", *(format_score(name, scores[f"mean_{name}"]) for name in SCORES)]]
    for index, label in enumerate(labels):
        rows.append([label, *(format_score(name, scores[f"per_category_{name}"][index]) for name in SCORES)])
    return rows
