"""Store the counts of each image, so that an interrupted evaluation can resume."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..metrics import Counts
from ..utils.fingerprint import are_unchanged, content_of
from ..utils.resuming import claim, clear_records, read_records


IDENTITY_FILE = "evaluation.json"


@dataclass(frozen=True)
class ImageRecord:
    """
    Result of one image.

    Attributes:
        image_id (`str`): Name of the image.
        state (`str`): State of its files, see [`files_state`]; the first is the photograph's.
        label_content (`str`): Hash of the label map's pixels, whatever its format.
        width (`int`), height (`int`): Size of the image in pixels.
        counts ([`Counts`]): Counts of shape `(num_labels,)`.
    """

    image_id: str
    state: str
    label_content: str
    width: int
    height: int
    counts: Counts

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {**vars(self), "counts": self.counts.to_tensor().tolist()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ImageRecord":
        """Create a record from the values of [`ImageRecord.to_json`]."""
        counts = Counts.from_tensor(torch.tensor(fields["counts"]))
        values: dict[str, Any] = {**fields, "counts": counts}
        return cls(**values)

    @property
    def data(self) -> list[str]:
        """Return hashes of the photograph's file and the label map's pixels, by which results are compared."""
        return [content_of(self.state.split()[0]), self.label_content]


def begin(folder: Path, identity: Mapping[str, Any], overwrite: bool):
    """
    Prepare a folder for starting or resuming an evaluation.

    Args:
        folder (`Path`): Folder of the evaluation.
        identity (`Mapping[str, Any]`): Settings that identify the evaluation, as JSON values.
        overwrite (`bool`): Whether to discard the records of another evaluation in the folder.

    Raises:
        ValueError: If it holds another evaluation.
    """
    if claim(folder / IDENTITY_FILE, identity, "evaluation", overwrite):
        clear_records(folder)


def read_image_records(folder: Path, files: Mapping[str, Sequence[Path]]) -> tuple[dict[str, ImageRecord], int]:
    """
    Read the records of images whose files have not changed since, written by any process.

    Args:
        folder (`Path`): Folder of the evaluation.
        files (`Mapping[str, Sequence[Path]]`): The images' files by image name.

    Returns:
        `tuple[dict[str, ImageRecord], int]`: The records by image name, and the number of images that have a record,
        but other files by now.
    """
    # Of several records, the last one.
    last = {fields["image_id"]: fields for fields in read_records(folder) if fields["image_id"] in files}
    current = {name: fields for name, fields in last.items() if are_unchanged(files[name], fields["state"])}
    return {name: ImageRecord.from_json(fields) for name, fields in current.items()}, len(last) - len(current)
