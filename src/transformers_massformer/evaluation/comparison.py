"""Compare results on the same images: differences with confidence intervals."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..metrics import Counts, class_scores
from ..metrics.tables import SCORES, format_score
from ..utils.names import list_names, same_names


# Entries of results.json.
NEEDED = ("images", "data", "scores", "counting", "labels", "split")
# Number of bootstrap samples computed at a time.
CHUNK = 200


def read_result(path: str | Path) -> dict[str, Any]:
    """
    Read a results.json file, given its path or its folder.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it was not written by `massformer evaluate`.
    """
    path = Path(path)
    path = path / "results.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Write one with `massformer evaluate`.")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not set(NEEDED) <= result.keys():
            raise ValueError(f"it lacks {', '.join(name for name in NEEDED if name not in result)}")
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} was not written by this version of `massformer evaluate`: {error}. Run it again."
        ) from error
    return result


def check_comparable(results: Mapping[str, Mapping[str, Any]]):
    """Raise a `ValueError` unless all results have the same split, images, label maps, classes and settings."""
    (first, reference), *others = results.items()
    for name, result in others:
        # Both are of the same label maps, in which an id cannot have two names.
        if not same_names(result["labels"], reference["labels"]):
            raise ValueError(
                f"{name} and {first} differ in the names of the data's classes: {list_names(result['labels'])}; and "
                f"{list_names(reference['labels'])}. Evaluate both with the same --labels."
            )
        for what in ("split", "counting"):
            if result[what] != reference[what]:
                raise ValueError(f"{name} and {first} differ in {what}: {result[what]} and {reference[what]}.")
        if result["images"].keys() != reference["images"].keys():
            differing = sorted(result["images"].keys() ^ reference["images"].keys())
            raise ValueError(
                f"{name} and {first} cover different images: {len(differing)} are in only one of them, such as "
                f"{', '.join(differing[:3])}."
            )
        for position, what in enumerate(("photographs", "label maps")):
            differing = [
                image for image, data in result["data"].items() if data[position] != reference["data"][image][position]
            ]
            if differing:
                raise ValueError(
                    f"{name} and {first} were made from different {what}: {len(differing)}, such as "
                    f"{', '.join(differing[:3])}. Evaluate both on the same data."
                )


def image_counts(result: Mapping[str, Any]) -> Counts:
    """Return counts of shape `(num_images, num_labels)`, sorted by image name."""
    return Counts.from_tensor(torch.tensor([result["images"][name] for name in sorted(result["images"])]))


def mean_scores(counts: Counts) -> torch.Tensor:
    """Return means over present classes, of shape `(..., 3)` in the order of `SCORES`."""
    scores = class_scores(counts)
    return torch.stack([getattr(scores, name).nanmean(dim=-1) for name in SCORES], dim=-1)


def bootstrap_weights(num_images: int, samples: int, seed: int) -> torch.Tensor:
    """Draw samples with replacement; return each image's multiplicity, float64 of shape `(samples, num_images)`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(num_images, (samples, num_images), generator=generator)
    weights = torch.zeros(samples, num_images, dtype=torch.float64)
    return weights.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))


def bootstrap_scores(counts: Counts, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean scores of each sample of images, of shape `(samples, 3)`."""
    values = counts.to_tensor().double()
    samples = [
        mean_scores(Counts.from_tensor(torch.einsum("sn,nkc->skc", chunk, values))) for chunk in weights.split(CHUNK)
    ]
    return torch.cat(samples)


def interval(values: torch.Tensor, confidence: float) -> tuple[float, float]:
    """Return the central interval that contains a `confidence` share of the values."""
    values, tail = values[~values.isnan()], (1 - confidence) / 2
    if not len(values):
        return math.nan, math.nan
    low, high = torch.quantile(values, torch.tensor([tail, 1 - tail], dtype=values.dtype)).tolist()
    return low, high


def compare(
    results: Mapping[str, Mapping[str, Any]], samples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> list[dict[str, Any]]:
    """
    Compute the scores of several results and their differences to the first, with bootstrap confidence intervals.

    All results share the same samples of images, drawn with replacement, so that the difficulty of an image cancels
    in differences.

    Args:
        results (`Mapping[str, Mapping[str, Any]]`): Contents of results.json files by name.
        samples (`int`, *optional*, defaults to 2000): Number of bootstrap samples.
        confidence (`float`, *optional*, defaults to 0.95): Share of samples within the intervals.
        seed (`int`, *optional*, defaults to 0): Seed of the samples.

    Returns:
        `list[dict]`: For each result, its `name` and, under `iou`, `boundary_iou` and `bf1`, a dict with `value`,
        `interval`, `difference` and `difference_interval` (both `None` for the first).

    Raises:
        ValueError: If results differ in images, classes or settings.
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
    Format a comparison as rows: a header, then one row per score and result. Differences are to the first result, and
    a star marks intervals that exclude zero.
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
    """Format an interval of a score."""
    return " to ".join(format_score(name, limit) for limit in limits)
