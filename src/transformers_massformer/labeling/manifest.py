"""All objects of a labelled folder as one file in COCO's format."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.files import written_whole
from .instances import Instance


@dataclass(frozen=True)
class PhotoRecord:
    """
    What was found in a photograph.

    Attributes:
        split (`str`), image_id (`str`): Which photograph.
        file (`str`): Its file.
        state (`str`): Another text once its files were written again.
        width (`int`), height (`int`): Its upright size in pixels.
        annotations (`list[dict]`): Its objects, as [`Instance.to_coco`] gives them.
    """

    split: str
    image_id: str
    file: str
    state: str
    width: int
    height: int
    annotations: list[dict[str, Any]]

    @property
    def instances(self) -> list[Instance]:
        return [Instance.from_coco(fields) for fields in self.annotations]


def manifest(records: Sequence[PhotoRecord], classes: Mapping[int, str], info: Mapping[str, Any]) -> dict[str, Any]:
    """
    COCO's format: `images`, `annotations` (boxes as left, top, width and height, masks as compressed run-length
    encodings at the size of the upright photograph) and `categories`. Ids are given in the records' order, so that
    they depend neither on interruptions nor on the number of processes.

    Args:
        records (`Sequence[PhotoRecord]`): What was found.
        classes (`Mapping[int, str]`): Names of the new classes by id.
        info (`Mapping[str, Any]`): What was labelled, and how.
    """
    images, annotations = [], []
    for image_number, record in enumerate(records, start=1):
        images.append(
            {
                "id": image_number,
                "file_name": record.file,
                "width": record.width,
                "height": record.height,
                "split": record.split,
                "image_id": record.image_id,
            }
        )
        for number, fields in enumerate(record.annotations):
            annotations.append({"id": len(annotations) + 1, "image_id": image_number, "instance": number, **fields})
    categories = [{"id": index, "name": name} for index, name in sorted(classes.items())]
    return {"info": dict(info), "images": images, "annotations": annotations, "categories": categories}


def write_manifest(path: Path, content: Mapping[str, Any]):
    with written_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
