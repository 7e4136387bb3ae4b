"""massformer import: convert what annotation tools export to MaSS13K's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..data.exports.names import Overlaps, Tool
from .console import console, fail, fail_interrupted, progress_bar
from .options import Labels


def import_annotations(
    source: Annotated[Path, typer.Argument(help="The unpacked export: a folder, or a JSON file.", show_default=False)],
    tool: Annotated[
        Tool,
        typer.Option(
            "--from",
            help="cvat: Segmentation mask 1.1. label-studio: JSON, or PNG files of brushes. coco: instances.",
        ),
    ],
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder of the data set; created if missing.")],
    photos: Annotated[Path | None, typer.Option(help="Folder of the photos. Default: the export's.")] = None,
    split: Annotated[
        str, typer.Option(help="train, val or test, for photos for which the export names none of these.")
    ] = "train",
    labels: Labels = None,
    background: Annotated[
        str | None, typer.Option(help="Class of pixels without annotation. Default: 255, which is ignored.")
    ] = None,
    overlaps: Annotated[
        Overlaps, typer.Option(help="Pixels of two classes. error: refuse them. last: what was drawn last wins.")
    ] = Overlaps.error,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace label maps that differ.")] = False,
):
    """Convert an annotation tool's export to MaSS13K's layout.

    Photos are hard-linked or copied to OUTPUT/images/SPLIT, label maps written to OUTPUT/annotations/SPLIT, and class
    names to OUTPUT/classes.txt.
    """
    from ..data.class_names import read_given_names
    from ..data.exports.job import Import, read_export
    from ..utils.names import list_names

    try:
        job = Import(
            read_export(tool, source),
            output,
            photos,
            split,
            read_given_names(labels),
            background,
            overlaps,
            overwrite,
        )
        with progress_bar() as progress:
            for _ in progress.track(job.run(), total=len(job.jobs), description="converting"):
                pass
    except (OSError, ValueError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail_interrupted()
    totals = job.totals
    console.print(
        f"{totals.photos} photos with label maps written to {output}; classes: {list_names(job.names)}", markup=False
    )
    if totals.overlapping:
        console.print(f"{totals.overlapping} pixels had several classes; the last one drawn was kept.")
    if totals.unlabelled:
        share = totals.unlabelled / totals.pixels
        console.print(
            f"{share:.1%} of the pixels have no class (255) and are ignored; --background NAME gives them one.",
            markup=False,
        )
