"""The counts of each image on disk, so that an interrupted evaluation goes on where it stopped."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..files import written_whole
from ..metrics import Counts


IDENTITY_FILE, RECORDS_FOLDER = "evaluation.json", "records"


@dataclass(frozen=True)
class ImageRecord:
    """
    What is kept of an image.

    Attributes:
        image_id (`str`): Its name.
        state (`str`): Another text once one of its files was written again.
        width (`int`), height (`int`): Its size in pixels.
        counts ([`Counts`]): Of shape `(num_labels,)`.
    """

    image_id: str
    state: str
    width: int
    height: int
    counts: Counts

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "counts": self.counts.to_tensor().tolist()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ImageRecord":
        counts = Counts.from_tensor(torch.tensor(fields["counts"]))
        return cls(fields["image_id"], fields["state"], fields["width"], fields["height"], counts)


def begin(folder: Path, identity: Mapping[str, Any], overwrite: bool):
    """
    Makes a folder ready for an evaluation, or for going on with it.

    Args:
        folder (`Path`): The folder.
        identity (`Mapping[str, Any]`): What is evaluated, and how; of what JSON can hold.
        overwrite (`bool`): Whether to forget what another evaluation has left there.

    Raises:
        ValueError: If it holds another evaluation.
    """
    path, identity = folder / IDENTITY_FILE, json.loads(json.dumps(identity))
    if path.exists():
        found = json.loads(path.read_text())
        if found != identity:
            differing = [name for name in {**found, **identity} if found.get(name) != identity.get(name)]
            if not overwrite:
                raise ValueError(
                    f"{folder} holds another evaluation (other {', '.join(differing)}). Choose another --output, or "
                    "--overwrite it."
                )
        if found == identity and not overwrite:
            return
    for old in (folder / RECORDS_FOLDER).glob("*.jsonl"):
        old.unlink()
    (folder / RECORDS_FOLDER).mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        partial.write_text(json.dumps(identity, indent=2) + "\n")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; where a run was interrupted one may not be whole."""
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def read_records(folder: Path, states: Mapping[str, str]) -> dict[str, ImageRecord]:
    """
    What is there of some images, by name, from all processes.

    Args:
        folder (`Path`): The evaluation's folder.
        states (`Mapping[str, str]`): Names of the images and the present state of their files.
    """
    records = {}
    for path in sorted((folder / RECORDS_FOLDER).glob("*.jsonl")):
        for fields in read_lines(path):
            if states.get(fields["image_id"]) == fields["state"]:
                records[fields["image_id"]] = ImageRecord.from_json(fields)
    return records


class RecordWriter:
    """Appends records to a process's own file."""

    def __init__(self, folder: Path, process_index: int):
        self.path = folder / RECORDS_FOLDER / f"{process_index}.jsonl"
        # A line that an interruption cut off ends here, or the next would be lost with it.
        text = self.path.read_text() if self.path.exists() else ""
        self.file = self.path.open("a")
        if text and not text.endswith("\n"):
            self.file.write("\n")

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *exception):
        self.file.close()

    def write(self, record: ImageRecord):
        self.file.write(json.dumps(record.to_json()) + "\n")
        self.file.flush()
