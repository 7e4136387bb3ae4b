"""massformer refine: sharpen label maps with HQ-SAM."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import console, error_console, fail, fail_interrupted, open_jobs, progress_bar
from .options import AllowTruncated, Device, DType, MaxMegapixels, Overwrite, Photographs, Precision, choose_photos


if TYPE_CHECKING:
    from ..hq_sam import Refiner


def refine_photo(refiner: Refiner, photo: Path, label_map: Path, output: Path, partial: Path) -> str:
    """Refine one label map, write it to a temporary path, and return its report."""
    import numpy as np

    from ..data.label_images import write_label_image
    from ..data.reading import read_label
    from ..images import open_image

    start = time.perf_counter()
    image = open_image(photo)
    values = read_label(label_map, str(label_map))[0].numpy()
    if values.shape != (image.height, image.width):
        raise ValueError(
            f"{label_map} has {values.shape[1]} x {values.shape[0]} pixels, its photograph {image.width} x "
            f"{image.height} (width x height)."
        )
    refined = refiner(image, values)
    write_label_image(refined, partial)
    changed = np.mean(refined != values)
    return f"{label_map} -> {output}: {changed:.2%} of the pixels changed, {time.perf_counter() - start:.1f} s"


def refine(
    paths: Photographs,
    label_maps: Annotated[Path, typer.Option(help="Folder of their label maps, such as massformer segment's.")],
    model: Annotated[str, typer.Option(help="Folder or Hub name of an HQ-SAM model.")],
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder for the refined label maps.")],
    class_id: Annotated[
        list[int] | None,
        typer.Option(
            "--class-id",
            help="Class to refine. Repeatable. Default: all but others, which is class 0 "
            "unless classes.txt beside the label maps says otherwise.",
        ),
    ] = None,
    min_area: Annotated[float, typer.Option(help="Keep smaller parts as they are; share of the photograph.")] = 1e-3,
    min_iou: Annotated[float, typer.Option(help="Drop masks that overlap less with their part.")] = 0.7,
    band: Annotated[
        float, typer.Option(help="Distance from its boundary within which a part may change, per diagonal.")
    ] = 0.01,
    device: Device = None,
    dtype: Precision = DType.float32,
    overwrite: Overwrite = False,
    max_megapixels: MaxMegapixels = None,
    allow_truncated: AllowTruncated = False,
):
    """Prompt HQ-SAM with the parts of label maps and merge its masks back where both agree."""
    import torch
    from transformers.utils import logging

    from ..data.class_names import write_class_names
    from ..data.label_map_folder import LabelMapFolder
    from ..hq_sam import Refiner
    from ..images import accept_photos
    from ..inference.identity import model_identity
    from ..inference.loading import default_device
    from ..labeling import SamSegmenter
    from ..utils.fingerprint import Origin
    from ..utils.names import find_name
    from ..utils.resuming import Results

    logging.disable_progress_bar()
    try:
        accept_photos(max_megapixels, allow_truncated)
        photos = choose_photos(paths, output)
        maps = LabelMapFolder(label_maps)
        names = maps.class_names()
        if class_id is None and names is not None:
            class_id = [index for index in range(len(names)) if index != find_name("others", names)]
        refiner = Refiner(
            SamSegmenter.load(model, device or default_device(), getattr(torch, dtype)),
            class_id,
            min_area,
            min_iou,
            band,
        )
        settings = {
            "model": model_identity(model),
            "classes": sorted(class_id or []),
            "min_area": min_area,
            "min_iou": min_iou,
            "band": band,
            "dtype": dtype,
        }
        if output.resolve() == label_maps.resolve():
            raise ValueError(f"Writing to {output} would replace the label maps. Choose another --output.")
        if names is not None:
            write_class_names(output, names)
    except (OSError, ValueError) as error:
        fail(error)
    failed, results = 0, Results(output)
    jobs, standings = [], []
    for photo, relative in photos:
        target = (output / relative).with_suffix(".png")
        try:
            label_map = maps.file(photo.stem)
            origin = Origin({"photograph": photo, "label map": label_map}, settings)
            standings.append(results.standing(target, origin))
            jobs.append((photo, label_map, target, origin))
        except (OSError, ValueError) as error:
            failed += 1
            error_console.print(f"failed: {photo}: {error}", style="red", markup=False)
    remaining, kept = open_jobs(jobs, standings, overwrite)
    with progress_bar() as progress:
        try:
            for photo, label_map, target, origin in progress.track(remaining, description="refining"):
                try:
                    with results.writing({target: origin.describe()}) as partials:
                        line = refine_photo(refiner, photo, label_map, target, partials[target])
                    console.print(line, markup=False)
                except (OSError, ValueError, MemoryError) as error:
                    failed += 1
                    error_console.print(f"failed: {photo}: {error}", style="red", markup=False)
        except KeyboardInterrupt:
            fail_interrupted()
    if failed:
        fail(f"{failed} of {len(photos)} photographs failed.")
    if kept:
        raise typer.Exit(1)
