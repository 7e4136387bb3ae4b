"""Convert an export: photographs and label maps in MaSS13K's layout, with the names of the classes beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ...utils.files import link_or_copy
from ...utils.names import check_names, find_name, list_names, same_names
from ..class_names import read_class_names, write_class_names
from ..headers import read_header
from ..label_images import read_label_image, write_label_image
from ..layout import IGNORE_INDEX, LABEL_FOLDER, SPLIT_FOLDERS
from ..reading import lay_on_photo
from .coco import read_coco
from .cvat import read_cvat
from .export import Annotated, Export, Layer, PhotoFinder
from .label_studio import photo_aliases, read_label_studio
from .names import Overlaps, Tool


READERS = {Tool.cvat: read_cvat, Tool.label_studio: read_label_studio, Tool.coco: read_coco}


def read_export(tool: Tool, source: Path) -> Export:
    """
    Read what a tool exported.

    Raises:
        FileNotFoundError: If the source or a file in it is missing.
        ValueError: If it is an archive, or a file is malformed.
    """
    if not source.exists():
        raise FileNotFoundError(f"There is no file or folder {source}.")
    if source.suffix.lower() in (".zip", ".tar", ".gz"):
        raise ValueError(f"{source} is an archive. Unpack it, and pass the folder.")
    return READERS[tool](source)


@dataclass
class Totals:
    """What was written: photographs, pixels, pixels without a class, and pixels of several classes."""

    photos: int = 0
    pixels: int = 0
    unlabelled: int = 0
    overlapping: int = 0


@dataclass(frozen=True)
class Job:
    """A photograph, its annotation, and the files to write."""

    item: Annotated
    photo: Path
    image: Path
    label: Path


@dataclass
class Import:
    """
    Conversion of an export.

    Args:
        export ([`Export`]): The export.
        output (`Path`): Folder of the data set.
        photos (`Path`, *optional*): Folder of the photographs.
        split (`str`): Split of the photographs for which the export names none.
        labels (`Sequence[str]`, *optional*): Names of the classes in the order of ids.
        background (`str`, *optional*): Class of the pixels that nobody has annotated.
        overlaps ([`Overlaps`]): What happens at pixels of two classes.
        overwrite (`bool`): Whether to replace label maps that differ.

    Raises:
        FileNotFoundError: If a photograph is missing.
        ValueError: If the export is empty, two photographs have one name, or classes do not fit together.
    """

    export: Export
    output: Path
    photos: Path | None = None
    split: str = "train"
    labels: Sequence[str] | None = None
    background: str | None = None
    overlaps: Overlaps = Overlaps.error
    overwrite: bool = False
    totals: Totals = field(default_factory=Totals)

    def __post_init__(self):
        if not self.export.items:
            raise ValueError("The export has no annotated photos.")
        self.names = self.class_names()
        self.default = IGNORE_INDEX if self.background is None else self.class_id(self.background, "--background")
        self.jobs = self.plan()

    def class_names(self) -> list[str]:
        """Return the given names, those beside the data, or the tool's with the background first."""
        present = read_class_names(self.output) if self.output.is_dir() else None
        found = [name for name in self.export.classes if name != self.background]
        names = self.labels or present or ([] if self.background is None else [self.background]) + found
        names = check_names(names, "The classes")
        if present is not None and not same_names(present, names):
            raise ValueError(
                f"{self.output} has other classes: {list_names(present)}; these are {list_names(names)}. Choose "
                "another --output."
            )
        if len(names) > IGNORE_INDEX:
            raise ValueError(f"A label map holds at most {IGNORE_INDEX} classes; there are {len(names)}.")
        return names

    def class_id(self, name: str, origin: str) -> int:
        """Return the id of a class; raise a ValueError if it is unknown."""
        index = find_name(name, self.names)
        if index is None:
            raise ValueError(
                f"{origin} has the unknown class {name!r}; the classes are {list_names(self.names)}. Add it to "
                "--labels."
            )
        return index

    def plan(self) -> list[Job]:
        """Find the photographs and choose the files to write."""
        folders = {name: folders[0] for folders in SPLIT_FOLDERS.values() for name in folders}
        if self.split not in folders:
            raise ValueError(f"--split {self.split} is unknown: choose from {', '.join(folders)}.")
        finder = PhotoFinder(self.photos or self.export.photos)
        jobs, owners = [], {}
        for item in self.export.items:
            photo = finder.find(item.photo, item.origin, photo_aliases(item.photo))
            split = item.split or folders[self.split]
            owner = owners.setdefault((split, photo.stem.lower()), item)
            if owner is not item:
                raise ValueError(
                    f"{owner.origin} and {item.origin} belong to photos of one name, {photo.stem}. Rename one, or "
                    "convert them into different folders."
                )
            name = f"{photo.stem}{photo.suffix.lower()}"
            label = self.output / LABEL_FOLDER / split / f"{photo.stem}.png"
            jobs.append(Job(item, photo, self.output / "images" / split / name, label))
        return jobs

    def run(self) -> Iterator[None]:
        """Write class names, photographs and label maps, yielding after each photograph."""
        write_class_names(self.output, self.names)
        for job in self.jobs:
            label_map = self.convert(job)
            self.check_unchanged(job, label_map)
            link_or_copy(job.photo, job.image)
            write_label_image(label_map, job.label)
            self.totals.photos += 1
            self.totals.pixels += label_map.size
            self.totals.unlabelled += int(np.count_nonzero(label_map == IGNORE_INDEX))
            yield

    def check_unchanged(self, job: Job, label_map: np.ndarray):
        """Refuse to replace a label map that differs."""
        if self.overwrite or not job.label.exists():
            return
        if not np.array_equal(read_label_image(job.label, str(job.label))[0], label_map):
            raise ValueError(
                f"{job.label} exists and differs from {job.item.origin}. Pass --overwrite to replace it, or choose "
                "another --output."
            )

    def convert(self, job: Job) -> np.ndarray:
        """
        Convert the annotation of a photograph to a label map that lies on the upright photograph.

        Raises:
            ValueError: If it cannot be read, has another size than its photograph, an unknown class, or pixels of two
                classes.
        """
        header = read_header(job.photo)
        drawn = self.draw(job.item)
        if drawn is None:
            drawn = np.full(header.upright_size[::-1], self.default, np.uint8)
        names = str(job.photo), job.item.origin
        upright = header.upright_size[::-1]
        return lay_on_photo(torch.from_numpy(drawn), 0, upright, header.orientation or 1, names).numpy()

    def draw(self, item: Annotated) -> np.ndarray | None:
        """Draw the layers of a photograph over each other; `None` if it has none."""
        label_map, drawn = None, np.zeros((0, 0), bool)
        for name, mask in item.read():
            if label_map is None:
                label_map, drawn = np.full(mask.shape, self.default, np.uint8), np.zeros(mask.shape, bool)
            if mask.shape != label_map.shape:
                raise ValueError(f"{item.origin} has masks of several sizes. Export it again.")
            if name == self.export.unlabelled and name != self.background:
                continue
            self.draw_layer(item, label_map, drawn, (name, mask))
        return label_map

    def draw_layer(self, item: Annotated, label_map: np.ndarray, drawn: np.ndarray, layer: Layer):
        """Draw one layer, and count or refuse pixels that have another class already."""
        name, mask = layer
        index = self.class_id(name, item.origin)
        clash = mask & drawn & (label_map != index)
        count = int(np.count_nonzero(clash))
        if count and self.overlaps is Overlaps.error:
            others = ", ".join(self.names[other] for other in np.unique(label_map[clash]).tolist())
            raise ValueError(
                f"{item.origin}: {name} overlaps {others} at {count} pixels. Assign each pixel to one class, or pass "
                "--overlaps last to keep what was drawn last."
            )
        self.totals.overlapping += count
        label_map[mask] = index
        drawn |= mask
