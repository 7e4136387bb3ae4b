"""massformer annotations: convert a data set's label maps to another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..data.formats import FORMAT_HELP, AnnotationFormat
from .console import console, fail, fail_interrupted, open_jobs, progress_bar
from .options import AddClass, DataArgument, Labels, MaskValues, Overwrite, choose_splits


if TYPE_CHECKING:
    from ..data.layout import Pair


def convert_label_map(pair: Pair, path: Path, labels: list[str], annotation_format: AnnotationFormat):
    """Write one label map, upright as its photograph."""
    from ..data.annotations import write_label_map
    from ..data.headers import read_header
    from ..data.mask_values import check_ids
    from ..data.reading import lay_on_photo, read_label

    photo = read_header(pair.image)
    names = str(pair.image), str(pair.label)
    stored = read_label(pair.label, names[1], pair.mask_values)
    label = lay_on_photo(*stored, photo.upright_size[::-1], photo.orientation or 1, names).numpy()
    check_ids(label, len(labels), names[1])
    try:
        write_label_map(label, path, labels, pair.image.name, annotation_format)
    except ValueError as error:
        raise ValueError(f"{pair.label}: {error}") from error


def check_written_classes(output: Path, names: list[str]):
    """Refuse a folder whose label maps have other classes: the ones written now would lie beside them."""
    from ..data.class_names import read_class_names
    from ..data.layout import LABEL_FOLDER, LABELS
    from ..utils.names import list_names, same_names

    if not (output / LABEL_FOLDER).is_dir():
        return
    found = read_class_names(output) or list(LABELS)
    if not same_names(found, names):
        raise ValueError(
            f"{output} holds label maps of other classes: {list_names(found)}; these have {list_names(names)}. Choose "
            "another --output."
        )


def annotations(
    data: DataArgument,
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder for annotations/SPLIT/NAME, upright.")],
    annotation_format: Annotated[
        AnnotationFormat,
        typer.Option("--format", help=FORMAT_HELP),
    ],
    split: Annotated[list[str] | None, typer.Option(help="train, validation or test. Default: all.")] = None,
    labels: Labels = None,
    mask_values: MaskValues = None,
    add_class: AddClass = None,
    overwrite: Overwrite = False,
):
    """Convert a data set's label maps to another format.

    Finished files are skipped; where a label map, its photograph or an option has changed since, they are written
    again. Files that this command did not write, or that were changed since, are kept without --overwrite. Class names
    other than MaSS13K's are written to OUTPUT/classes.txt.
    """
    from ..data.class_names import data_classes, write_own_class_names
    from ..data.layout import LABEL_FOLDER, check_faults
    from ..data.mask_values import with_mask_values
    from ..utils.extras import require
    from ..utils.fingerprint import Origin
    from ..utils.resuming import Results

    if annotation_format is AnnotationFormat.coco_rle:
        require("pycocotools.mask", "coco", "--format coco-rle")
    try:
        splits = choose_splits(data, split or [])
        for name, found in splits.items():
            check_faults(name, found)
        names = data_classes(data, splits, labels, add_class or ()).names
        splits = with_mask_values(splits, mask_values, names)
        check_written_classes(output, names)
        jobs = []
        for found in splits.values():
            for pair in found.pairs:
                folder = output / LABEL_FOLDER / pair.label.parent.name
                path = folder / f"{pair.image_id}{annotation_format.suffix}"
                settings = {"classes": names, "format": annotation_format, "mask_values": pair.mask_values}
                origin = Origin({"label map": pair.label, "photograph": pair.image}, settings)
                jobs.append((pair, path, origin))
        results = Results(output)
        standings = [results.standing(path, origin) for _, path, origin in jobs]
        remaining, kept = open_jobs(jobs, standings, overwrite)
        write_own_class_names(output, names)
        with progress_bar() as progress:
            for pair, path, origin in progress.track(remaining, description="converting"):
                with results.writing({path: origin.describe()}) as partials:
                    convert_label_map(pair, partials[path], names, annotation_format)
    except (OSError, ValueError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail_interrupted()
    console.print(f"{len(remaining)} of {len(jobs)} label maps written to {output / LABEL_FOLDER}", markup=False)
    if kept:
        raise typer.Exit(1)
