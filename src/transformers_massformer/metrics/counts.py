"""Reduce label maps to per-image counts. IoU, Boundary IoU and BF1 need only their sums over a data set."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


DISTANCES = ("euclidean", "chebyshev")
# Largest number of classes stored as bytes: these functions are bound by memory bandwidth.
MAX_BYTE_LABELS = 255


@dataclass(frozen=True)
class CountSettings:
    """
    Settings of the counts.

    Args:
        ignore_index (`int`, *optional*, defaults to 255):
            Label of the pixels without a class, or `None`. These pixels are not counted, but their neighbours count as
            boundary pixels.
        boundary_ratio (`float`, *optional*, defaults to 0.001):
            Width of Boundary IoU's boundary band, as a fraction of the image diagonal (paper, section B.2). It is
            rounded to pixels and at least 1.
        bf1_tolerance (`float`, *optional*, defaults to 2):
            Distance in pixels within which boundary pixels match (paper, section B.2).
        bf1_distance (`str`, *optional*, defaults to `"euclidean"`):
            Metric of that distance: `"euclidean"` or `"chebyshev"` (the larger of the row and column differences).
        release_compatible (`bool`, *optional*, defaults to `False`):
            Whether predicted bands keep the pixels whose label is ignored, as in the authors' release.

    Raises:
        ValueError: If a setting is invalid.
    """

    ignore_index: int | None = 255
    boundary_ratio: float = 0.001
    bf1_tolerance: float = 2.0
    bf1_distance: str = "euclidean"
    release_compatible: bool = False

    def __post_init__(self):
        if not 0 < self.boundary_ratio < 1:
            raise ValueError(f"`boundary_ratio` must be between 0 and 1 (exclusive), got {self.boundary_ratio}.")
        if not 0 <= self.bf1_tolerance < math.inf:
            raise ValueError(f"`bf1_tolerance` must be a finite number, at least 0, got {self.bf1_tolerance}.")
        if self.bf1_distance not in DISTANCES:
            raise ValueError(f"`bf1_distance` must be one of {', '.join(DISTANCES)}, got {self.bf1_distance}.")


@dataclass(frozen=True)
class Counts:
    """
    Pixel counts per class, each an int64 `torch.Tensor` of shape `(..., num_labels)`. The leading dimensions, if any,
    are images.

    Attributes:
        intersection: Pixels that have the class in both prediction and label.
        prediction_area: Pixels that have the class in the prediction.
        label_area: Pixels that have the class in the label.
        boundary_intersection: Pixels that have the class in both and lie in both boundary bands.
        prediction_band: Pixels of the prediction's boundary band.
        label_band: Pixels of the label's boundary band.
        matched_prediction_boundary: Predicted boundary pixels with a boundary pixel of the label within the tolerance
            (true positives of precision).
        prediction_boundary: Predicted boundary pixels.
        matched_label_boundary: Boundary pixels of the label with a predicted one within the tolerance (true positives
            of recall).
        label_boundary: Boundary pixels of the label.
    """

    intersection: torch.Tensor
    prediction_area: torch.Tensor
    label_area: torch.Tensor
    boundary_intersection: torch.Tensor
    prediction_band: torch.Tensor
    label_band: torch.Tensor
    matched_prediction_boundary: torch.Tensor
    prediction_boundary: torch.Tensor
    matched_label_boundary: torch.Tensor
    label_boundary: torch.Tensor

    @property
    def union(self) -> torch.Tensor:
        return self.prediction_area + self.label_area - self.intersection

    @property
    def boundary_union(self) -> torch.Tensor:
        return self.prediction_band + self.label_band - self.boundary_intersection

    @property
    def num_labels(self) -> int:
        return self.intersection.shape[-1]

    def to_tensor(self) -> torch.Tensor:
        """Stack the counts into an int64 tensor of shape `(..., 10, num_labels)`, in the order of the attributes."""
        return torch.stack([getattr(self, field.name) for field in dataclasses.fields(self)], dim=-2)

    @classmethod
    def from_tensor(cls, values: torch.Tensor) -> "Counts":
        """Restore counts from `to_tensor`."""
        return cls(*values.unbind(dim=-2))

    def sum(self) -> "Counts":
        """Sum the counts over the images."""
        values = self.to_tensor()
        return Counts.from_tensor(values.reshape(-1, *values.shape[-2:]).sum(dim=0))

    @classmethod
    def stack(cls, counts: Sequence["Counts"]) -> "Counts":
        """Stack the counts of single images in a new first dimension."""
        return cls.from_tensor(torch.stack([each.to_tensor() for each in counts]))


def band_width(height: int, width: int, boundary_ratio: float) -> int:
    """Return the width of the boundary band in pixels: a fraction of the diagonal, rounded, at least 1 (release)."""
    return max(1, round(boundary_ratio * math.hypot(height, width)))


def reduce_windows(values: torch.Tensor, length: int, dim: int, reduce: Callable) -> torch.Tensor:
    """Reduce each window of `length` values along an axis, in a logarithmic number of steps."""

    def combine(values: torch.Tensor, shift: int) -> torch.Tensor:
        rest = values.shape[dim] - shift
        return reduce(values.narrow(dim, 0, rest), values.narrow(dim, shift, rest))

    span = 1
    while 2 * span <= length:
        values = combine(values, span)
        span *= 2
    return combine(values, length - span) if span < length else values


def boundary_band(label_map: torch.Tensor, width: int) -> torch.Tensor:
    """
    Find the pixels within a Chebyshev distance of a pixel of another class or of the outside of the image: for each
    class, the pixels that `width` erosions of its mask with a 3 x 3 square remove. Label maps are partitions, so a
    minimum and a maximum over windows give the bands of all classes at once.

    Args:
        label_map (`torch.Tensor` of shape `(height, width)`): Class ids.
        width (`int`): Distance in pixels, at least 1.

    Returns:
        `torch.Tensor` of shape `(height, width)`: Boolean map.
    """
    band = torch.ones_like(label_map, dtype=torch.bool)
    length = 2 * width + 1
    if min(label_map.shape) >= length:
        smallest, largest = (
            reduce_windows(reduce_windows(label_map, length, 1, reduce), length, 0, reduce)
            for reduce in (torch.minimum, torch.maximum)
        )
        torch.ne(smallest, largest, out=band[width:-width, width:-width])
    return band


@functools.lru_cache
def offsets_within(tolerance: float, distance: str) -> list[tuple[int, int]]:
    """Return the row and column offsets of all pixels within a distance, nearest first."""
    reach = math.floor(tolerance)
    offsets = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    if distance == "euclidean":
        offsets = [(y, x) for y, x in offsets if y * y + x * x <= tolerance * tolerance]
    return sorted(offsets, key=lambda offset: offset[0] ** 2 + offset[1] ** 2)


def matched_labels(
    own: torch.Tensor, other: torch.Tensor, offsets: list[tuple[int, int]], nothing: int
) -> torch.Tensor:
    """
    Return the labels of the boundary pixels that match: the other map has a boundary pixel of that label within reach.

    Args:
        own (`torch.Tensor` of shape `(height, width)`): Labels of boundary pixels, and `nothing` elsewhere.
        other (`torch.Tensor` of shape `(height, width)`): The same for the other map.
        offsets (`list[tuple[int, int]]`): Offsets of the pixels within reach, nearest first.
        nothing (`int`): Value that is not a label.

    Returns:
        `torch.Tensor` of shape `(num_matched,)`: The labels.
    """
    reach = max(max(offset) for offset in offsets)
    padded = torch.nn.functional.pad(other, [reach] * 4, value=nothing).flatten()
    stride = other.shape[1] + 2 * reach
    rows, columns = (own != nothing).nonzero(as_tuple=True)
    labels, positions = own[rows, columns], (rows + reach) * stride + columns + reach
    matched = []
    # With good predictions, few pixels are left after the first offsets.
    for y, x in offsets:
        found = padded[positions + (y * stride + x)] == labels
        matched.append(labels[found])
        labels, positions = labels[~found], positions[~found]
    return torch.cat(matched)


def count_labels(labels: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Count the occurrences of each label below `num_labels` as int64; larger labels are ignored."""
    return torch.bincount(labels.flatten(), minlength=num_labels)[:num_labels]


def check_label_maps(prediction: torch.Tensor, label: torch.Tensor):
    """Raise a ValueError unless both are label maps of the same size."""
    for name, label_map in (("The prediction", prediction), ("The label", label)):
        if label_map.ndim != 2 or label_map.is_floating_point() or label_map.is_complex() or not label_map.numel():
            raise ValueError(
                f"{name} must be a label map: integers of shape (height, width), at least one; got "
                f"{str(label_map.dtype).removeprefix('torch.')} of shape {tuple(label_map.shape)}."
            )
    if prediction.shape != label.shape:
        raise ValueError(
            f"The prediction has {prediction.shape[1]} x {prediction.shape[0]} pixels (width x height), its label "
            f"{label.shape[1]} x {label.shape[0]}. Resize the model's scores, not its label map, to the label's size."
        )


def check_classes(name: str, label_map: torch.Tensor, num_labels: int, remedy: str):
    """Raise a ValueError that lists the values outside the classes."""
    smallest, largest = (int(value) for value in label_map.aminmax())
    if smallest < 0 or largest >= num_labels:
        found = label_map.unique()
        unknown = [str(value) for value in found[(found < 0) | (found >= num_labels)].tolist()]
        listed = ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        raise ValueError(f"{name} has values that are none of the {num_labels} classes: {listed}. {remedy}")


def count_image(
    prediction: torch.Tensor,
    label: torch.Tensor,
    num_labels: int,
    settings: CountSettings | None = None,
    allow_unlabelled: bool = False,
) -> Counts:
    """
    Count the pixels of one image.

    Args:
        prediction (`torch.Tensor` of shape `(height, width)`): Predicted classes, of any integer type.
        label (`torch.Tensor` of shape `(height, width)`): True classes, or `settings.ignore_index`.
        num_labels (`int`): Number of classes.
        settings ([`CountSettings`], *optional*): Settings of the counts; the paper's by default.
        allow_unlabelled (`bool`, *optional*, defaults to `False`):
            Whether the prediction may contain `settings.ignore_index` for pixels without a predicted class, which are
            correct for no class. By default such pixels raise an error.

    Returns:
        [`Counts`]: Counts of shape `(num_labels,)`, on the device of the label.

    Raises:
        ValueError: If the arguments are not label maps of the same size with known classes.
    """
    settings = settings or CountSettings()
    check_label_maps(prediction, label)
    prediction = prediction.to(label.device)
    valid = (
        torch.ones_like(label, dtype=torch.bool) if settings.ignore_index is None else label != settings.ignore_index
    )
    if allow_unlabelled and settings.ignore_index is not None:
        labelled = prediction != settings.ignore_index
    else:
        labelled = torch.ones_like(prediction, dtype=torch.bool)
    check_classes(
        "The prediction", prediction.where(labelled, 0), num_labels, "Map its classes to those of the labels."
    )
    check_classes(
        "The label", label.where(valid, 0), num_labels, "Set `ignore_index` to the label of the pixels to ignore."
    )

    # Pixels without a class get an id above those of all classes.
    dtype = torch.uint8 if num_labels <= MAX_BYTE_LABELS else torch.int32
    prediction, label = (
        label_map.to(dtype).where(mask, num_labels) for label_map, mask in ((prediction, labelled), (label, valid))
    )
    count = functools.partial(count_labels, num_labels=num_labels)

    def only(label_map: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return label_map.where(mask, num_labels)

    width = band_width(*label.shape, settings.boundary_ratio)
    prediction_band, label_band = boundary_band(prediction, width), boundary_band(label, width)
    if not settings.release_compatible:
        prediction_band &= valid
    prediction_lines = only(prediction, boundary_band(prediction, 1) & valid)
    label_lines = only(label, boundary_band(label, 1))
    offsets = offsets_within(settings.bf1_tolerance, settings.bf1_distance)
    agreed = only(label, label == prediction)
    return Counts(
        intersection=count(agreed),
        prediction_area=count(only(prediction, valid)),
        label_area=count(label),
        boundary_intersection=count(only(agreed, prediction_band & label_band)),
        prediction_band=count(only(prediction, prediction_band)),
        label_band=count(only(label, label_band)),
        matched_prediction_boundary=count(matched_labels(prediction_lines, label_lines, offsets, num_labels)),
        prediction_boundary=count(prediction_lines),
        matched_label_boundary=count(matched_labels(label_lines, prediction_lines, offsets, num_labels)),
        label_boundary=count(label_lines),
    )


def count_images(
    predictions: torch.Tensor | Sequence[torch.Tensor],
    labels: torch.Tensor | Sequence[torch.Tensor],
    num_labels: int,
    settings: CountSettings | None = None,
) -> Counts:
    """
    Count the pixels of several images, which may differ in size.

    Args:
        predictions (`torch.Tensor` of shape `(batch_size, height, width)`, or a sequence of label maps):
            Predicted classes.
        labels (`torch.Tensor` of shape `(batch_size, height, width)`, or a sequence of label maps):
            True classes, or `settings.ignore_index`.
        num_labels (`int`): Number of classes.
        settings ([`CountSettings`], *optional*): Settings of the counts; the paper's by default.

    Returns:
        [`Counts`]: Counts of shape `(batch_size, num_labels)`.

    Raises:
        ValueError: If the numbers of predictions and labels differ or are 0, or a pair is invalid (see
            [`count_image`]).
    """
    if len(predictions) != len(labels) or not len(labels):
        raise ValueError(
            f"Pass the same number of predictions and labels, at least one; got {len(predictions)} and {len(labels)}."
        )
    pairs = zip(predictions, labels, strict=True)
    return Counts.stack([count_image(prediction, label, num_labels, settings) for prediction, label in pairs])
