"""Label a data set: read photos, write label maps and records, and resume interrupted runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import PIL.Image

from ..data.class_names import write_class_names
from ..data.label_images import write_label_image
from ..data.layout import IGNORE_INDEX, Pair
from ..data.pseudo_labels import PseudoLabelFiles
from ..data.reading import read_pair
from ..utils.files import written_whole
from ..utils.fingerprint import are_unchanged, files_state
from ..utils.names import find_name, list_names, name_key, same_names
from ..utils.resuming import RecordWriter, claim, clear_records, read_records
from .instances import Instance
from .labeler import Labeler
from .manifest import PhotoRecord, manifest, write_manifest
from .merging import combined_label_map, pseudo_label_map
from .review import Decision, Reviewable, contact_sheet, decide, draw_cell, write_review_list


IDENTITY_FILE, REVIEW_LIST, SHEETS_FOLDER = "labeling.json", "review.csv", "review"
# Records are read in the order of their names: review's records follow those of the labeling processes, 0, 1, ...
REVIEW_RECORDS = "review"
# Class whose pixels may get a new class.
OTHERS = "others"
CELLS_PER_SHEET = 20


@dataclass(frozen=True)
class Photo:
    """A photo to label and the label map to which the new classes are added."""

    split: str
    pair: Pair

    @property
    def key(self) -> tuple[str, str]:
        return self.split, self.pair.image_id

    @property
    def files(self) -> list[Path]:
        """The files that its results are made from."""
        return [self.pair.image, self.pair.label]


class LabelJob:
    """
    Output folder of a labeling run.

    Args:
        output (`Path`): The folder.
        photos (`Sequence[Photo]`): The photos to label.
        classes (`Mapping[int, str]`): Names of the new classes by id.
        labels (`Sequence[str]`): Names of all classes, including the new ones.
        relabel_all (`bool`): Whether a new class may replace every class, or only "others".
        added (`Mapping[int, str]`, *optional*): Classes that earlier labeling runs added, by id.

    Raises:
        ValueError: If there is no class "others" to replace, or there are more classes than ids.
    """

    def __init__(
        self,
        output: Path,
        photos: Sequence[Photo],
        classes: Mapping[int, str],
        labels: Sequence[str],
        relabel_all: bool,
        added: Mapping[int, str] = MappingProxyType({}),
    ):
        others = find_name(OTHERS, labels)
        if others is None and not relabel_all:
            raise ValueError(
                f"The data has no class {OTHERS!r} whose pixels could get the new class: it has {', '.join(labels)}. "
                "Pass --relabel all, so that any class may."
            )
        if len(labels) > IGNORE_INDEX:
            raise ValueError(f"A label map holds at most {IGNORE_INDEX} classes; with the new ones, {len(labels)}.")
        self.output, self.files = output, PseudoLabelFiles(output)
        self.photos, self.classes, self.labels = list(photos), dict(classes), list(labels)
        self.relabel_all = relabel_all
        # Classes missing from the original data, added by this and by earlier labeling runs.
        self.added = {**added, **self.classes}
        # Id of the pixels outside of all objects.
        self.elsewhere = IGNORE_INDEX if others is None else others

    def begin(self, identity: Mapping[str, Any], overwrite: bool):
        """
        Claim the folder for this run, or resume the run that it holds.

        Raises:
            ValueError: If the folder holds another labeling run.
        """
        if claim(self.output / IDENTITY_FILE, identity, "labeling run", overwrite):
            clear_records(self.output)
            self.files.manifest.unlink(missing_ok=True)

    def done(self) -> dict[tuple[str, str], PhotoRecord]:
        """Return the last record of each photo that has not changed since and whose label maps exist, by its key."""
        found = (PhotoRecord(**fields) for fields in read_records(self.output))
        records = {(record.split, record.image_id): record for record in found}
        return {
            photo.key: records[photo.key]
            for photo in self.photos
            if photo.key in records
            and all(path.is_file() for path in self.outputs(photo))
            and are_unchanged(photo.files, records[photo.key].state)
        }

    def outputs(self, photo: Photo) -> list[Path]:
        """Return the label maps of a photo: that of the new classes alone, and the combined one."""
        return [self.files.alone(*photo.key), self.files.combined(*photo.key)]

    def read(self, photo: Photo) -> tuple[PIL.Image.Image, np.ndarray]:
        """
        Read a photo, upright and in RGB, and the label map aligned with it.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file cannot be decoded or contains unknown labels.
        """
        image, label = read_pair(photo.pair.image, photo.pair.label, (str(photo.pair.image), str(photo.pair.label)))
        label_map = label.numpy()
        known = len(self.labels) - len(self.classes)
        unknown = sorted(set(np.unique(label_map).tolist()) - {*range(known), IGNORE_INDEX})
        if unknown:
            raise ValueError(
                f"{photo.pair.label} contains unknown labels: {unknown}. Labels must be 0 to {known - 1}, or "
                f"{IGNORE_INDEX} for pixels without a class."
            )
        return image, label_map

    def write(
        self, photo: Photo, state: str, label_map: np.ndarray, instances: Sequence[Instance], writer: RecordWriter
    ):
        """
        Write a photo's label maps and then its record, which marks the photo as finished.

        Args:
            photo ([`Photo`]): The photo.
            state (`str`): State of its files, from before they were read.
            label_map (`np.ndarray` of shape `(height, width)`): Its label map.
            instances (`Sequence[Instance]`): Its objects.
            writer ([`RecordWriter`]): Where to record it.
        """
        height, width = label_map.shape
        pseudo_labels = pseudo_label_map(instances, (height, width), self.elsewhere)
        combined = combined_label_map(label_map, pseudo_labels, IGNORE_INDEX, self.relabel_all, self.elsewhere)
        split, image_id = photo.key
        for path, values in zip(self.outputs(photo), (pseudo_labels, combined), strict=True):
            write_label_image(values, path)
        annotations = [instance.to_coco() for instance in instances]
        record = PhotoRecord(split, image_id, str(photo.pair.image), state, width, height, annotations)
        writer.write(vars(record))

    def label(
        self, labeler: Labeler, prompts: Mapping[int, str], photos: Sequence[Photo], writer: RecordWriter
    ) -> Iterator[tuple[Photo, int | Exception]]:
        """
        Label photos in batches of the detector's batch size.

        Yields:
            `tuple`: Each photo with the number of its objects, or with the error that made it fail.
        """
        size = labeler.options.batch_size if labeler.options.tile is None else 1
        for start in range(0, len(photos), size):
            read = []
            for photo in photos[start : start + size]:
                try:
                    state = files_state(photo.files)
                    read.append((photo, state, *self.read(photo)))
                except (OSError, ValueError) as error:
                    yield photo, error
            images = [image for _, _, image, _ in read]
            for (photo, state, _, label_map), instances in zip(read, labeler(images, prompts), strict=True):
                self.write(photo, state, label_map, instances, writer)
                yield photo, len(instances)

    def check_reviewed(self, info: Mapping[str, Any]):
        """
        Check that the folder was labelled for the classes of this run.

        Args:
            info (`Mapping[str, Any]`): Description of the run in the folder's manifest.

        Raises:
            ValueError: If it was labelled for other classes, or their ids differ.
        """
        found = [*info["known"], *info["classes"]]
        if not same_names(found, self.labels):
            raise ValueError(
                f"{self.output} was labelled with {' '.join(f'--class {name}' for name in info['classes'])} on data "
                f"with {list_names(info['known'])}; now the classes are {list_names(self.labels)}. Give the same "
                "--class, in the same order, and data with the same classes."
            )
        if (info["relabel"] == "all") != self.relabel_all:
            raise ValueError(f"{self.output} was labelled with --relabel {info['relabel']}. Pass the same.")

    def review(self, decisions: Mapping[tuple[str, str, int], Decision]) -> int:
        """
        Rewrite the label maps whose review decisions changed.

        Args:
            decisions (`Mapping`): Decisions from [`read_review_list`].

        Returns:
            `int`: Number of objects whose decision changed.

        Raises:
            ValueError: If an object of the list does not exist, or is listed with another class.
        """
        records, changed = self.done(), 0
        missing = [photo.pair.image_id for photo in self.photos if photo.key not in records]
        if missing:
            raise ValueError(
                f"{len(missing)} photos, such as {missing[0]}, have no result that fits their present files. Run the "
                "labelling again, and then apply the review list."
            )
        for (split, image_id, number), decision in decisions.items():
            record = records.get((split, image_id))
            if record is None or number >= len(record.annotations):
                raise ValueError(
                    f"The review list names object {number} of {image_id} in {split}, which does not exist."
                )
            name = self.classes[record.instances[number].class_id]
            if decision.class_name and name_key(decision.class_name) != name_key(name):
                raise ValueError(
                    f"The review list calls object {number} of {image_id} in {split} {decision.class_name!r}, but it "
                    f"is a {name!r}. Review accepts or rejects objects; it cannot change their class."
                )
        with RecordWriter(self.output, REVIEW_RECORDS) as writer:
            for photo in self.photos:
                instances = records[photo.key].instances
                decided = decide(instances, decisions, *photo.key)
                differing = sum(new != old for new, old in zip(decided, instances, strict=True))
                if differing:
                    state = files_state(photo.files)
                    self.write(photo, state, self.read(photo)[1], decided, writer)
                    changed += differing
        return changed

    def reviewables(self, records: Sequence[PhotoRecord]) -> list[Reviewable]:
        """Return all objects with the facts that reviewers need."""
        return [
            Reviewable(record.split, record.image_id, number, self.classes[instance.class_id], instance)
            for record in records
            for number, instance in enumerate(record.instances)
        ]

    def finish(self, info: Mapping[str, Any], sheets: int) -> list[Reviewable]:
        """
        Write the manifest, the review list and the contact sheets. Every photo must be finished.

        Args:
            info (`Mapping[str, Any]`): Description of the run for the manifest.
            sheets (`int`): Number of contact sheets, filled with evenly spaced objects.

        Returns:
            `list[Reviewable]`: All objects.
        """
        done = self.done()
        records = [done[photo.key] for photo in self.photos]
        reviewables = self.reviewables(records)
        write_review_list(reviewables, self.output / REVIEW_LIST)
        self.write_sheets(reviewables, sheets)
        write_class_names(self.output, self.labels)
        # The manifest comes last because it marks the folder as finished.
        write_manifest(self.files.manifest, manifest(records, self.added, info))
        return reviewables

    def write_sheets(self, reviewables: Sequence[Reviewable], count: int):
        """Replace the contact sheets: crops around evenly spaced objects."""
        folder = self.output / SHEETS_FOLDER
        for old in folder.glob("*.jpg"):
            old.unlink(missing_ok=True)
        wanted = min(count * CELLS_PER_SHEET, len(reviewables))
        chosen = [reviewables[index * len(reviewables) // wanted] for index in range(wanted)]
        by_key = {photo.key: photo for photo in self.photos}
        for number, start in enumerate(range(0, wanted, CELLS_PER_SHEET), start=1):
            cells, opened = [], {}
            for each in chosen[start : start + CELLS_PER_SHEET]:
                key = each.split, each.image_id
                if key not in opened:
                    # Objects of the same photo are consecutive, so one open photo is enough.
                    opened = {key: self.read(by_key[key])[0]}
                cells.append(draw_cell(opened[key], each))
            with written_whole(folder / f"{number:03d}.jpg") as partial:
                contact_sheet(cells).save(partial, format="JPEG", quality=90)
