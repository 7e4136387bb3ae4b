"""Store the counts of each image, so that an interrupted evaluation can resume."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..metrics import Counts
from ..utils.resuming import claim, clear_records, read_records


IDENTITY_FILE = "evaluation.json"


@dataclass(frozen=True)
class ImageRecord:
    """
    Result of one image.

    Attributes:
        image_id (`str`): Name of the image.
        state (`str`): State of its files, which changes when one of them is rewritten.
        width (`int`), height (`int`): Size of the image in pixels.
        counts ([`Counts`]): Counts of shape `(num_labels,)`.
    """

    image_id: str
    state: str
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
        return cls(fields["image_id"], fields["state"], fields["width"], fields["height"], counts)


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


def read_image_records(folder: Path, states: Mapping[str, str]) -> dict[str, ImageRecord]:
    """
    Read the records of images whose files have not changed since, written by any process.

    Args:
        folder (`Path`): Folder of the evaluation.
        states (`Mapping[str, str]`): Current states of the images' files by image name.

    Returns:
        `dict[str, ImageRecord]`: The records by image name.
    """
    return {
        fields["image_id"]: ImageRecord.from_json(fields)
        for fields in read_records(folder)
        if states.get(fields["image_id"]) == fields["state"]
    }
