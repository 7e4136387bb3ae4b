"""Prepare a public data set: write its photographs and label maps in MaSS13K's layout."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.files import link_or_copy
from ...utils.fingerprint import Origin
from ...utils.json_files import write_json
from ...utils.resuming import Results
from ..headers import Header, label_orientation, read_header
from ..label_images import write_label_image
from ..layout import IGNORE_INDEX, LABEL_FOLDER, LABELS
from .layouts import Item, Source, find_source
from .names import PublicDataSet
from .tables import IGNORED, build_lookup, convert_values


# Share of the photographs for validation where the owners have no split.
VAL_SHARE = 0.1
RECORD = "prepared.json"


@dataclass(frozen=True)
class Job:
    """A photograph to prepare and the files to write."""

    item: Item
    image: Path
    label: Path

    @property
    def origin(self) -> Origin:
        """What the files are made from, besides what identifies the folder."""
        return Origin({"photograph": self.item.image, "label map": self.item.label}, {})


def draw_split(image_id: str, share: float) -> str:
    """Choose the split of a photograph by its name alone, so that it is the same for any selection of photographs."""
    number = int.from_bytes(hashlib.sha256(image_id.encode(errors="surrogateescape")).digest()[:8], "big")
    return "val" if number < share * 2**64 else "train"


def split_items(items: list[Item], share: float | None) -> dict[str, list[Item]]:
    """
    Divide photographs into splits: the owners', or a share for validation. Of a video, the last frames are for
    validation, because neighbouring frames are alike.

    Args:
        items (`list[Item]`): The photographs.
        share (`float`, *optional*): Share for validation that replaces the owners' splits.

    Raises:
        ValueError: If two photographs of a split have the same name, or a split for training or validation is empty.
    """
    splits: dict[str, list[Item]] = defaultdict(list)
    videos: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if share is None and item.split is not None:
            splits[item.split].append(item)
        elif item.sequence is not None:
            videos[item.sequence].append(item)
        else:
            splits[draw_split(item.image_id, VAL_SHARE if share is None else share)].append(item)
    for frames in videos.values():
        cut = len(frames) - round(len(frames) * (VAL_SHARE if share is None else share))
        splits["train"] += frames[:cut]
        splits["val"] += frames[cut:]
    for split, chosen in splits.items():
        name, count = Counter(item.image_id for item in chosen).most_common(1)[0] if chosen else ("", 0)
        if count > 1:
            raise ValueError(f"{count} photographs of the split {split} have the name {name}. Rename or remove them.")
    for split in ("train", "val"):
        if not splits[split]:
            raise ValueError(
                f"The split {split} of {len(items)} photographs is empty. Choose another share with --val-share."
            )
    return dict(splits)


def describe_job(name: PublicDataSet, source: Path, found: Source, val_share: float | None) -> dict[str, Any]:
    """Return what identifies a prepared folder: the data set, its mapping, and the split."""
    mapping: dict[str, list[str]] = defaultdict(list)
    for owners_class, label in found.table.labels.items():
        mapping[IGNORED if label == IGNORE_INDEX else LABELS[label]].append(owners_class)
    return {
        "data_set": str(name),
        "source": str(source.resolve()),
        "title": found.table.title,
        "val_share": val_share,
        "annotated_classes": list(found.table.complete),
        "mapping": mapping,
    }


def claim_output(output: Path, record: dict[str, Any]):
    """
    Record in the output which data set it holds.

    Raises:
        ValueError: If it holds something else.
    """
    path = output / RECORD
    if path.exists():
        present = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(key for key in {**present, **record} if present.get(key) != record.get(key))
        if differing:
            raise ValueError(
                f"{output} holds {present.get('title')} prepared from {present.get('source')} (different "
                f"{', '.join(differing)}). Choose another --output."
            )
    elif output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty and has no {RECORD}. Choose another --output.")
    else:
        write_json(record, path)


class Preparation:
    """
    Preparation of a data set.

    Args:
        name ([`PublicDataSet`]): The data set.
        source (`Path`): Its folder, in the owners' layout.
        output (`Path`): The folder to write.
        val_share (`float`, *optional*):
            Share of the photographs for validation. By default the owners' splits, or a tenth where there are none.

    Raises:
        FileNotFoundError: If the folder has another layout, or a file is missing.
        ValueError: If the share is not between 0 and 1, the output holds something else, or a split is unusable.
    """

    def __init__(self, name: PublicDataSet, source: Path, output: Path, val_share: float | None = None):
        if val_share is not None and not 0 < val_share < 1:
            raise ValueError(f"--val-share {val_share} must be between 0 and 1.")
        self.found = find_source(name, source)
        self.jobs = [
            Job(
                item,
                output / "images" / split / f"{item.image_id}{item.image.suffix.lower()}",
                output / LABEL_FOLDER / split / f"{item.image_id}.png",
            )
            for split, items in split_items(self.found.items, val_share).items()
            for item in items
        ]
        claim_output(output, describe_job(name, source, self.found, val_share))
        self.results = Results(output)
        self.lookup = build_lookup(self.found.table, self.found.values)

    def open_jobs(self) -> list[Job]:
        """
        Return the photographs that are not finished, or whose files have changed since.

        Raises:
            ValueError: If one of their label maps was written by something else, or changed after it was written.
        """
        found = []
        for job in self.jobs:
            standing = self.results.standing(job.label, job.origin)
            if standing.is_in_the_way:
                raise ValueError(f"{job.label} {standing.reason}. Remove it, or choose another --output.")
            if not (standing.is_finished and job.image.exists()):
                found.append(job)
        return found

    def convert(self, item: Item) -> np.ndarray:
        """
        Convert the label map of a photograph.

        Raises:
            ValueError: If a file cannot be read, has an unknown class, or the sizes differ.
        """
        label = convert_values(self.found.read(item.label), self.lookup, self.found.table, item.label)
        try:
            label_orientation(read_header(item.image), Header(label.shape[1], label.shape[0]))
        except ValueError as error:
            raise ValueError(f"{item.label}, the label map of {item.image}: {error}") from error
        return label

    def do(self, job: Job):
        """Write the files of a photograph."""
        origin = job.origin.describe()
        label_map = self.convert(job.item)
        link_or_copy(job.item.image, job.image)
        with self.results.writing({job.label: origin}) as partials:
            write_label_image(label_map, partials[job.label])

    def run(self, jobs: Sequence[Job], threads: int) -> Iterator[None]:
        """Prepare photographs, yielding after each."""
        with ThreadPoolExecutor(threads) as executor:
            futures = [executor.submit(self.do, job) for job in jobs]
            try:
                for future in futures:
                    yield future.result()
            finally:
                executor.shutdown(cancel_futures=True)
