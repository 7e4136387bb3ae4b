"""The counts of each image on disk, so that an interrupted evaluation goes on where it stopped."""

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
    if claim(folder / IDENTITY_FILE, identity, "evaluation", overwrite):
        clear_records(folder)


def read_image_records(folder: Path, states: Mapping[str, str]) -> dict[str, ImageRecord]:
    """
    What is there of some images, by name, from all processes.

    Args:
        folder (`Path`): The evaluation's folder.
        states (`Mapping[str, str]`): Names of the images and the present state of their files.
    """
    return {
        fields["image_id"]: ImageRecord.from_json(fields)
        for fields in read_records(folder)
        if states.get(fields["image_id"]) == fields["state"]
    }
