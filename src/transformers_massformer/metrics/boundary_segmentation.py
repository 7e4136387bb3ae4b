"""Provide IoU, Boundary IoU and boundary F1 of label maps to `evaluate.load`."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import torch

from .counts import Counts, CountSettings, count_image
from .scores import score


DESCRIPTION = """
Measures the agreement of label maps: mean intersection over union (IoU); Boundary IoU, the IoU within a narrow band
along the boundaries; and the boundary F1 score (BF1), which matches boundary pixels within a tolerance. The scores are
those that MaSS13K reports.
"""

INPUTS = """
Args:
    predictions (`list` of label maps):
        Arrays, tensors or lists of class ids of shape `(height, width)`, of any sizes.
    references (`list` of label maps): True class ids, or `ignore_index`, in the same formats.
    num_labels (`int`, *optional*):
        Number of classes, an argument of `compute`. Defaults to the largest id plus one.
    ignore_index (`int`, *optional*, defaults to 255): Label of the pixels to ignore, or `None`.
    boundary_ratio (`float`, *optional*, defaults to 0.001):
        Width of Boundary IoU's band, as a fraction of the image diagonal.
    bf1_tolerance (`float`, *optional*, defaults to 2): Distance in pixels within which boundary pixels match.
    bf1_distance (`str`, *optional*, defaults to `"euclidean"`): `"euclidean"` or `"chebyshev"`.
    release_compatible (`bool`, *optional*, defaults to `False`):
        Whether predicted bands keep ignored pixels, as in the release of MaSS13K.

    The settings after `num_labels` are arguments of `evaluate.load`. `compute` accepts them together with predictions.

Returns:
    `mean_iou`, `mean_boundary_iou`, `mean_bf1`, `overall_accuracy` and other means as floats; `per_category_iou`,
    `per_category_boundary_iou`, `per_category_bf1` as lists with a float per class, NaN for absent classes;
    `settings`.

Examples:
    >>> metric = evaluate.load("boundary_segmentation")
    >>> metric.add_batch(predictions=[[[0, 0, 1], [0, 1, 1]]], references=[[[0, 0, 1], [0, 0, 1]]])
    >>> metric.compute(num_labels=2)["mean_iou"]
    0.7083333333333333
"""

CITATION = "Xie et al., MaSS13K: A Matting-level Semantic Segmentation Benchmark, CVPR 2025, arXiv:2503.18364"


def as_label_map(values: Any) -> torch.Tensor:
    """Convert an array, an image or nested lists to a tensor."""
    if isinstance(values, torch.Tensor):
        return values
    array = np.array(values)
    return torch.from_numpy(array.astype(np.int64) if array.dtype.kind == "u" and array.itemsize > 1 else array)


def largest_class(label_map: torch.Tensor, ignore_index: int | None) -> int:
    """Return the largest id that is not ignored, at least 0."""
    valid = label_map if ignore_index is None else label_map[label_map != ignore_index]
    return max(0, int(valid.max())) if valid.numel() else 0


class BoundarySegmentation(evaluate.Metric):
    """
    Metric that stores the counts of each image, a few hundred numbers, instead of its label maps.

    Args:
        ignore_index, boundary_ratio, bf1_tolerance, bf1_distance, release_compatible: See [`CountSettings`].
        kwargs: Arguments of `evaluate.Metric`.
    """

    def __init__(
        self,
        ignore_index: int | None = 255,
        boundary_ratio: float = 0.001,
        bf1_tolerance: float = 2.0,
        bf1_distance: str = "euclidean",
        release_compatible: bool = False,
        **kwargs: Any,
    ):
        self.settings = CountSettings(ignore_index, boundary_ratio, bf1_tolerance, bf1_distance, release_compatible)
        super().__init__(**kwargs)

    def _info(self) -> evaluate.MetricInfo:
        # Stored per image: its counts, and the settings with which they were made.
        stored = {
            "predictions": datasets.Sequence(datasets.Sequence(datasets.Value("int64"))),
            "references": datasets.Value("string"),
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(stored),
            reference_urls=["https://arxiv.org/abs/2503.18364", "https://arxiv.org/abs/2103.16562"],
        )

    def count(self, predictions: Sequence[Any] | None, references: Sequence[Any] | None, settings: CountSettings):
        """Count pairs of label maps and store the counts, or nothing if a pair is invalid."""
        if predictions is None or references is None:
            raise ValueError("Pass both predictions and references.")
        if len(predictions) != len(references):
            raise ValueError(f"Got {len(predictions)} predictions for {len(references)} references.")
        counts = []
        for index, pair in enumerate(zip(predictions, references, strict=True)):
            prediction, label = map(as_label_map, pair)
            num_labels = 1 + max(largest_class(prediction, None), largest_class(label, settings.ignore_index))
            try:
                counts.append(count_image(prediction, label, num_labels, settings))
            except ValueError as error:
                raise ValueError(f"Pair {index}: {error}") from error
        if counts:
            written = json.dumps(dataclasses.asdict(settings), sort_keys=True)
            rows = [each.to_tensor().tolist() for each in counts]
            super().add_batch(predictions=rows, references=[written] * len(rows))

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """Count pairs of label maps."""
        if kwargs:
            raise ValueError(
                f"add_batch accepts only predictions and references, got {', '.join(kwargs)}. Pass settings to "
                "`evaluate.load` and `num_labels` to `compute`."
            )
        self.count(predictions, references, self.settings)

    def add(self, *, prediction=None, reference=None, **kwargs):
        """Count one pair of label maps."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def compute(self, *, predictions=None, references=None, num_labels=None, **settings):
        """Compute the scores of all counted pairs and of the pairs passed here."""
        settings = dataclasses.replace(self.settings, **self.known_settings(settings))
        if settings != self.settings and (len(self) or predictions is None):
            raise ValueError(
                f"The added label maps were counted with {self.settings}, not with {settings}. Pass the settings to "
                "`evaluate.load` before adding label maps."
            )
        if predictions is not None or references is not None:
            self.count(predictions, references, settings)
        return super().compute(num_labels=num_labels)

    @staticmethod
    def known_settings(settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings; raise a ValueError if one is unknown."""
        names = [field.name for field in dataclasses.fields(CountSettings)]
        unknown = [name for name in settings if name not in names]
        if unknown:
            raise ValueError(f"Unknown settings: {', '.join(unknown)}. Use {', '.join(names)} or num_labels.")
        return settings

    # Metrics of the library narrow this signature in the same way.
    def _compute(  # ty: ignore[incompatible-method-override]
        self, *, predictions: list[list[list[int]]], references: list[str], num_labels: int | None = None
    ) -> dict[str, Any]:
        if len(set(references)) > 1:
            raise ValueError(f"The processes counted with different settings: {'; '.join(sorted(set(references)))}.")
        found = max(len(rows[0]) for rows in predictions)
        if num_labels is None:
            num_labels = found
        if found > num_labels:
            raise ValueError(
                f"The label maps contain a class {found - 1}, but `num_labels` is {num_labels}. Pass at least {found}."
            )
        counts = torch.zeros(len(predictions), len(predictions[0]), num_labels, dtype=torch.int64)
        for image, rows in zip(counts, predictions, strict=True):
            image[:, : len(rows[0])] = torch.tensor(rows)
        return score(Counts.from_tensor(counts), CountSettings(**json.loads(references[0])))
