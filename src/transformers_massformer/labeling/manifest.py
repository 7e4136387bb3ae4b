"""Write all objects of a labeling run to one file in COCO format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.json_files import write_json
from .instances import Instance


@dataclass(frozen=True)
class PhotoRecord:
    """
    Objects found in a photo.

    Attributes:
        split (`str`): Split of the photo.
        image_id (`str`): Name of the photo.
        file (`str`): File of the photo.
        state (`str`): State of the photo and its label map, see [`files_state`].
        width (`int`): Width of the upright photo in pixels.
        height (`int`): Height of the upright photo in pixels.
        annotations (`list[dict]`): The objects, from [`Instance.to_coco`].
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
    Build the manifest in COCO format: `images`, `annotations` (boxes as left, top, width and height; masks as
    compressed run-length encodings at the size of the upright photo) and `categories`. Ids follow the order of the
    records and so depend neither on interruptions nor on the number of processes.

    Args:
        records (`Sequence[PhotoRecord]`): The objects of each photo.
        classes (`Mapping[int, str]`): Names of the new classes by id.
        info (`Mapping[str, Any]`): Description of the run.
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
    """Write a manifest as JSON."""
    write_json(content, path)
