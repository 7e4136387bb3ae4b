"""Mixtures: training sets of several folders whose labels differ in quality, described by a YAML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset

from ..utils.names import check_names, find_name, list_names, match_names
from .class_names import DataClasses
from .samples import read_sample
from .training_set import TrainingSet
from .transforms import TrainingTransform


# Samples within which every source has its share, to within one.
BLOCK = 20
# Steps of the golden ratio spread evenly over [0, 1), however many there are.
GOLDEN_RATIO = (5**0.5 - 1) / 2
EDGES = ("exact", "coarse")


@dataclass(frozen=True)
class Source:
    """
    One folder of a mixture.

    Attributes:
        data (`Path`): Folder in the layout of MaSS13K.
        share (`float`): Its share of the samples, in proportion to those of the other sources.
        edges (`str` or `int`): `"exact"`; `"coarse"` if the edges are not to be relied on; or the width in pixels of
            the band around edges between classes that is ignored.
        scales (`tuple[float, float]`, *optional*):
            Factors between which the photographs are resized; by default, the short sides of the recipe are used.
        annotated_classes (`tuple[str, ...]`, *optional*):
            Classes that are labelled wherever they occur; by default, all of them. Others may occur in pixels without
            a label.
        focus (`tuple[str, ...]`): Rare classes that every second window contains; see [`TrainingTransform`].
        origin (`str`): The file and the place in it, for errors.
    """

    data: Path
    share: float
    edges: str | int = "exact"
    scales: tuple[float, float] | None = None
    annotated_classes: tuple[str, ...] | None = None
    focus: tuple[str, ...] = ()
    origin: str = "the mixture"

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the samples, for JSON."""
        return {**vars(self), "data": str(self.data.resolve()), "origin": None}

    def describe(self, total: float) -> str:
        """
        Describe the source for display.

        Args:
            total (`float`): Sum of the shares of all sources.
        """
        edges = f"{self.edges} edges" if self.edges in EDGES else f"edges ignored within {self.edges} pixels"
        scales = "" if self.scales is None else f", scales {self.scales[0]:g} to {self.scales[1]:g}"
        classes = "" if self.annotated_classes is None else f", labels of {' / '.join(self.annotated_classes)} only"
        focus = f", every second window with {' or '.join(self.focus)}" if self.focus else ""
        return f"{100 * self.share / total:.3g} % from `{self.data.name}` ({edges}{scales}{classes}{focus})"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)


def is_band(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value)) and 0 < value[0] <= value[1]


def is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


# What the value of each key must be, and how to say so.
CHECKS = {
    "data": (lambda value: isinstance(value, str), "a folder"),
    "share": (lambda value: is_number(value) and value > 0, "a positive number"),
    "edges": (lambda value: value in EDGES or is_band(value), "`exact`, `coarse` or a positive number of pixels"),
    "scales": (is_range, "two positive numbers, such as [0.5, 2.0], the smaller one first"),
    "annotated_classes": (is_names, "a list of class names"),
    "focus": (is_names, "a list of class names"),
}


def read_source(entry: Any, folder: Path, place: str) -> Source:
    """Check one entry of `sources`, whose folder is relative to `folder`, and return it."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{place} is {entry!r}; write keys with values: {', '.join(CHECKS)}.")
    origin = f"{place} ({entry['data']})" if "data" in entry else place
    unknown = [str(key) for key in entry if key not in CHECKS]
    if unknown:
        raise ValueError(f"{origin} has the unknown keys {', '.join(unknown)}; the keys are {', '.join(CHECKS)}.")
    for key in ("data", "share"):
        if key not in entry:
            raise ValueError(f"{origin} has no `{key}`; add it: {CHECKS[key][1]}.")
    for key, value in entry.items():
        is_valid, expected = CHECKS[key]
        if not is_valid(value):
            raise ValueError(f"{origin}: {key} is {value!r}; it must be {expected}.")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    values["data"] = folder / entry["data"]
    source = Source(**values, origin=origin)
    if not source.data.is_dir():
        raise FileNotFoundError(f"{origin}: the folder {source.data} does not exist; paths are relative to the file.")
    return source


def read_mixture(path: Path) -> list[Source]:
    """
    Read the description of a mixture.

    Args:
        path (`Path`): YAML file with a list `sources`, whose entries have the keys `data` and `share` and optionally
            `edges`, `scales`, `annotated_classes` and `focus`; see [`Source`].

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If the file is not such a description.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    entries = content.get("sources") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} does not describe a mixture: it must have a list `sources`, and no other key.")
    sources = [read_source(entry, path.parent, f"{path}, source {n}") for n, entry in enumerate(entries, start=1)]
    seen: dict[Path, Source] = {}
    for source in sources:
        other = seen.setdefault(source.data.resolve(), source)
        if other is not source:
            raise ValueError(f"{source.origin} is the folder of {other.origin}: merge the two and add their shares.")
    return sources


def known_classes(source: Source, key: str, labels: Sequence[str]) -> list[int]:
    """Return the indices of the classes that a key of a source names; raises a ValueError if one is unknown."""
    names = getattr(source, key)
    places = match_names(names, labels, f"{source.origin}: {key}", "the model")
    if unknown := [name for name, place in zip(names, places, strict=True) if place is None]:
        raise ValueError(
            f"{source.origin}: {key} has the unknown classes {', '.join(unknown)}; the model's classes are "
            f"{', '.join(labels)}."
        )
    return [place for place in places if place is not None]


def labelled_mask(source: Source, labels: Sequence[str]) -> torch.Tensor:
    """
    Return which classes a source labels, a bool `torch.Tensor` of shape `(num_labels,)`.

    Raises:
        ValueError: If it names an unknown class.
    """
    if source.annotated_classes is None:
        return torch.ones(len(labels), dtype=torch.bool)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[known_classes(source, "annotated_classes", labels)] = True
    return mask


def source_transform(transform: TrainingTransform, source: Source, labels: Sequence[str]) -> TrainingTransform:
    """Return the transform with the scales, the edges and the focus of a source."""
    ignored_band = source.edges if is_band(source.edges) else 0
    focus = known_classes(source, "focus", labels)
    if source.annotated_classes is not None:
        absent = set(focus) - set(known_classes(source, "annotated_classes", labels))
        if absent:
            names = ", ".join(labels[index] for index in sorted(absent))
            raise ValueError(
                f"{source.origin}: focus has {names}, which annotated_classes does not list. Remove it from focus, or "
                "add it there."
            )
    return replace(transform, scales=source.scales, ignored_band=ignored_band, focus=focus)


def join_classes(classes: Sequence[DataClasses], given: Sequence[str] | None) -> DataClasses:
    """
    Bring the classes of several sources together by name.

    Args:
        classes (`Sequence[DataClasses]`): The classes of each source.
        given (`Sequence[str]`, *optional*): The classes to train; by default, all of the sources in their order.

    Returns:
        [`DataClasses`]: The classes to train, assumed to be MaSS13K's if this holds for all sources.

    Raises:
        ValueError: If names do not fit together.
    """
    if given is not None:
        return DataClasses(list(given), "--labels")
    names: list[str] = []
    for each in classes:
        names += [name for name in each.names if find_name(name, names) is None]
    origins = " and ".join(dict.fromkeys(each.origin for each in classes))
    return DataClasses(check_names(names, origins), origins, all(each.is_assumed for each in classes))


def source_class_ids(source: Source, classes: DataClasses, names: Sequence[str]) -> list[int]:
    """
    Return the id of the class to train for each id in a source's label maps.

    Args:
        source ([`Source`]): The source.
        classes ([`DataClasses`]): Its classes.
        names (`Sequence[str]`): The classes to train.

    Raises:
        ValueError: If the source has other classes, or lacks some without declaring its `annotated_classes`.
    """
    places = match_names(classes.names, names, source.origin, "the classes to train")
    if unknown := [name for name, place in zip(classes.names, places, strict=True) if place is None]:
        raise ValueError(
            f"{source.origin}: {classes.origin} has {', '.join(unknown)}, which is missing from the classes to train, "
            f"{list_names(names)}. Add it to --labels, or remove it from the source."
        )
    absent = [name for index, name in enumerate(names) if index not in places]
    if absent and source.annotated_classes is None:
        raise ValueError(
            f"{source.origin}: {classes.origin} lacks {', '.join(absent)}, which other sources have. List the classes "
            "that are labelled wherever they occur as annotated_classes, or, if no photo shows the rest, add their "
            "names to its classes.txt."
        )
    return [place for place in places if place is not None]


class MixtureSet(TrainingSet):
    """
    Training samples of several sources in fixed shares. An epoch has as many samples as there are images. Of every
    `BLOCK` samples, each source has its share to within one, and over many samples exactly. The images of a source are
    drawn without repetition until all were drawn.

    Args:
        datasets (`Sequence[Sequence]`): The items of each source, as for [`TrainingSet`].
        sources (`Sequence[Source]`): The sources.
        transform ([`TrainingTransform`]): The transform; each source's edges, scales and focus are added to it.
        labels (`Sequence[str]`): The model's class names.
        seed (`int`): As for [`TrainingSet`].

    Raises:
        ValueError: If a source names an unknown class.
    """

    def __init__(
        self,
        datasets: Sequence[Sequence[Mapping[str, Any]]],
        sources: Sequence[Source],
        transform: TrainingTransform,
        labels: Sequence[str],
        seed: int = 0,
    ):
        joined: Any = ConcatDataset(datasets)  # ty: ignore[invalid-argument-type]  # any sequences will do
        super().__init__(joined, transform, seed)
        self.sources, self.sizes = list(sources), [len(dataset) for dataset in datasets]
        self.labelled = [labelled_mask(source, labels) for source in sources]
        self.labels = list(labels)
        self.transforms = [source_transform(transform, source, labels) for source in sources]
        self.planned_epoch, self.planned = -1, np.empty((0, 2), dtype=np.int64)

    def plan(self) -> np.ndarray:
        """Return the source and the item of every sample of the current epoch, of shape `(num_samples, 2)`."""
        epoch = self.epoch
        if epoch != self.planned_epoch:
            rng = np.random.Generator(np.random.Philox(key=[self.seed, epoch], counter=[0, 0, 2, 0]))
            self.planned, self.planned_epoch = self.draw_plan(rng), epoch
        return self.planned

    def draw_plan(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the plan of an epoch: systematic samples of the sources per block, then permutations of their items."""
        shares = np.array([source.share for source in self.sources])
        limits = shares.cumsum() / shares.sum()
        num_blocks = -(-len(self) // BLOCK)
        offsets = (rng.random() + GOLDEN_RATIO * np.arange(num_blocks)) % 1
        slots = rng.permuted(np.tile(np.arange(BLOCK), (num_blocks, 1)), axis=1)
        points = ((slots + offsets[:, None]) / BLOCK).reshape(-1)[: len(self)]
        numbers = np.searchsorted(limits[:-1], points, side="right")
        chosen = np.empty(len(self), dtype=np.int64)
        for number, size in enumerate(self.sizes):
            mine = np.flatnonzero(numbers == number)
            passes = [rng.permutation(size) for _ in range(-(-len(mine) // size))]
            chosen[mine] = sum(self.sizes[:number]) + np.concatenate([*passes, mine[:0]])[: len(mine)]
        return np.stack([numbers, chosen], axis=1)

    def order(self) -> list[int]:
        """Return the indices in order, because the plan is already random."""
        return list(range(len(self)))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """
        Make a training sample.

        Args:
            index (`int`): Index of the sample; negative ones count from the end.

        Returns:
            `dict[str, torch.Tensor]`: `pixel_values`, `labels`, `coarse_edges` (bool scalar) and `annotated_classes`
            (bool of shape `(num_labels,)`).

        Raises:
            IndexError: If the index is out of range.
            FileNotFoundError: If a file is missing.
            ValueError: If a file cannot be decoded, the sizes differ, or there are labels that are unknown or that the
                source does not declare.
        """
        index = range(len(self))[index]
        number, item = self.plan()[index].tolist()
        source = self.sources[number]
        image, label, name = read_sample(self.dataset, item)
        try:
            sample = self.transforms[number](image, label, self.generator(index), name)
            self.check_classes(label, self.labelled[number], name)
        except ValueError as error:
            raise ValueError(f"{source.origin}: {error}") from error
        return {
            **sample,
            "coarse_edges": torch.tensor(source.edges == "coarse"),
            "annotated_classes": self.labelled[number],
        }

    def check_classes(self, label: torch.Tensor, labelled: torch.Tensor, name: str):
        """Refuse a label map with a class that its source does not label."""
        if labelled.all():
            return
        counts = np.bincount(label.numpy().reshape(-1), minlength=256)[: len(labelled)]
        counts[self.transform.ignore_index : self.transform.ignore_index + 1] = 0
        wrong = [self.labels[index] for index in np.flatnonzero(counts) if not labelled[index]]
        if wrong:
            raise ValueError(
                f"{name} has pixels of {', '.join(wrong)}, which annotated_classes does not list. Add the class, or "
                f"change these pixels to {self.transform.ignore_index}."
            )
