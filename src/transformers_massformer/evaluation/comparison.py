"""Several results on the same images: differences, and how sure they are."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..metrics import Counts, class_scores
from .report import SCORES, format_score


# Bootstrap samples that are computed at a time.
CHUNK = 200


def read_result(path: str | Path) -> dict[str, Any]:
    """
    A results.json, or that of a folder.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is something else.
    """
    path = Path(path)
    path = path / "results.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; `massformer evaluate` writes a results.json.")
    try:
        result = json.loads(path.read_text())
        if not {"images", "scores", "counting", "labels"} <= result.keys():
            raise ValueError("it lacks images, scores, counting or labels")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no results.json of `massformer evaluate`: {error}.") from error
    return result


def check_comparable(results: Mapping[str, Mapping[str, Any]]):
    """Raises a ValueError unless all results are of the same images, classes and settings."""
    (first, reference), *others = results.items()
    for name, result in others:
        for what in ("labels", "counting"):
            if result[what] != reference[what]:
                raise ValueError(f"{name} and {first} have other {what}: {result[what]} and {reference[what]}.")
        if result["images"].keys() != reference["images"].keys():
            differing = sorted(result["images"].keys() ^ reference["images"].keys())
            raise ValueError(
                f"{name} and {first} are not of the same images: {len(differing)} are in one only, such as "
                f"{', '.join(differing[:3])}."
            )
        for image, counts in result["images"].items():
            if sum(counts[2]) != sum(reference["images"][image][2]):
                raise ValueError(f"{name} and {first} were scored against different label maps of {image}.")


def image_counts(result: Mapping[str, Any]) -> Counts:
    """Counts of shape `(num_images, num_labels)`, images in order of their names."""
    return Counts.from_tensor(torch.tensor([result["images"][name] for name in sorted(result["images"])]))


def mean_scores(counts: Counts) -> torch.Tensor:
    """Means over present classes, of shape `(..., 3)` in the order of `SCORES`."""
    scores = class_scores(counts)
    return torch.stack([getattr(scores, name).nanmean(dim=-1) for name in SCORES], dim=-1)


def bootstrap_weights(num_images: int, samples: int, seed: int) -> torch.Tensor:
    """How often each image occurs in samples drawn with replacement: float64 of shape `(samples, num_images)`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(num_images, (samples, num_images), generator=generator)
    weights = torch.zeros(samples, num_images, dtype=torch.float64)
    return weights.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))


def bootstrap_scores(counts: Counts, weights: torch.Tensor) -> torch.Tensor:
    """Mean scores of each sample of images: shape `(samples, 3)`."""
    values = counts.to_tensor().double()
    samples = [
        mean_scores(Counts.from_tensor(torch.einsum("sn,nkc->skc", chunk, values))) for chunk in weights.split(CHUNK)
    ]
    return torch.cat(samples)


def interval(values: torch.Tensor, confidence: float) -> tuple[float, float]:
    """The interval that holds the middle share of values."""
    values, tail = values[~values.isnan()], (1 - confidence) / 2
    if not len(values):
        return math.nan, math.nan
    low, high = torch.quantile(values, torch.tensor([tail, 1 - tail], dtype=values.dtype)).tolist()
    return low, high


def compare(
    results: Mapping[str, Mapping[str, Any]], samples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> list[dict[str, Any]]:
    """
    Scores of several results and their differences to the first, with bootstrap confidence intervals: the same samples
    of images, drawn with replacement, for all, so that what makes an image hard for everyone cancels in differences.

    Args:
        results (`Mapping[str, Mapping[str, Any]]`): Names and contents of results.json files.
        samples (`int`, *optional*, defaults to 2000): Number of samples.
        confidence (`float`, *optional*, defaults to 0.95): What share of samples the intervals hold.
        seed (`int`, *optional*, defaults to 0): Of the samples.

    Returns:
        `list[dict]`: for each result its `name` and, for `iou`, `boundary_iou` and `bf1`, a dict with `value`,
        `interval`, `difference` and `difference_interval` (`None` for the first).

    Raises:
        ValueError: If they are not of the same images, classes and settings.
    """
    check_comparable(results)
    rows: list[dict[str, Any]] = []
    weights, reference = None, None
    for name, result in results.items():
        counts = image_counts(result)
        if weights is None:
            weights = bootstrap_weights(len(counts.intersection), samples, seed)
        means, sampled = mean_scores(counts.sum()), bootstrap_scores(counts, weights)
        if reference is None:
            reference = (means, sampled)
        row: dict[str, Any] = {"name": name}
        for index, score_name in enumerate(SCORES):
            is_first = not rows
            row[score_name] = {
                "value": means[index].item(),
                "interval": interval(sampled[:, index], confidence),
                "difference": None if is_first else (means - reference[0])[index].item(),
                "difference_interval": None if is_first else interval((sampled - reference[1])[:, index], confidence),
            }
        rows.append(row)
    return rows


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """
    Header and a row for each score of each result; differences are those to the first, and a star marks intervals
    without zero.
    """
    table = [["score", "result", "value", "interval", "difference", "its interval"]]
    for name, title in SCORES.items():
        for row in rows:
            entry = row[name]
            cells = [title, row["name"], format_score(name, entry["value"]), interval_text(name, entry["interval"])]
            if entry["difference"] is None:
                cells += ["", ""]
            else:
                low, high = entry["difference_interval"]
                sign, star = "+" if entry["difference"] >= 0 else "", "*" if low > 0 or high < 0 else ""
                cells += [f"{sign}{format_score(name, entry['difference'])}{star}", interval_text(name, (low, high))]
            table.append(cells)
    return table


def interval_text(name: str, limits: Sequence[float]) -> str:
    return " to ".join(format_score(name, limit) for limit in limits)
