"""massformer annotations: a data set's label maps in another format."""

from pathlib import Path
from typing import Annotated

import typer

from ..data.annotations import AnnotationFormat, write_label_map
from ..data.headers import read_header
from ..data.layout import LABEL_FOLDER, LABELS, Pair, check_faults
from ..data.reading import lay_on_photo, read_label
from .console import console, fail, progress_bar
from .stats import choose_splits


def convert_label_map(pair: Pair, path: Path, labels: list[str]):
    """Writes one label map as it lies on its upright photograph."""
    photo = read_header(pair.image)
    names = str(pair.image), str(pair.label)
    label = lay_on_photo(*read_label(pair.label, names[1]), photo.upright_size[::-1], photo.orientation or 1, names)
    try:
        write_label_map(label.numpy(), path, labels, pair.image.name)
    except ValueError as error:
        raise ValueError(f"{pair.label}: {error}") from error


def annotations(
    data: Annotated[Path, typer.Argument(help="Folder of MaSS13K, or of data in its layout.")],
    output: Annotated[Path, typer.Option(help="Folder that gets annotations/SPLIT/NAME, upright.")],
    annotation_format: Annotated[
        AnnotationFormat,
        typer.Option("--format", help="png: class indices with a palette; coco-rle: JSON, a mask of each class."),
    ],
    split: Annotated[list[str] | None, typer.Option(help="train, validation or test; by default all.")] = None,
    add_class: Annotated[
        list[str] | None, typer.Option(help="A class that the data has beside MaSS13K's; ids follow in this order.")
    ] = None,
):
    """Writes a data set's label maps in another format. What is there already is skipped."""
    try:
        labels = [*LABELS, *(add_class or ())]
        jobs = []
        for name, found in choose_splits(data, split or []).items():
            check_faults(name, found)
            for pair in found.pairs:
                folder = output / LABEL_FOLDER / pair.label.parent.name
                jobs.append((pair, folder / f"{pair.image_id}{annotation_format.suffix}"))
        open_jobs = [(pair, path) for pair, path in jobs if not path.exists()]
        with progress_bar() as progress:
            for pair, path in progress.track(open_jobs, description="converting"):
                convert_label_map(pair, path, labels)
    except (OSError, ValueError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("interrupted. What is finished is kept; the same command goes on from there.", code=130)
    console.print(f"{len(open_jobs)} of {len(jobs)} label maps written to {output / LABEL_FOLDER}", markup=False)
    if len(open_jobs) < len(jobs):
        console.print("The others are there already; remove them to write them again.")
