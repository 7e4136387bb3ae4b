"""massformer refine: sharper label maps with HQ-SAM."""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from transformers.utils import logging

from ..data.label_map_folder import LabelMapFolder
from ..data.reading import read_label
from ..editing import label_map_image
from ..hq_sam import Refiner
from ..inference.loading import default_device
from ..labeling import SamSegmenter
from ..models.image_processing_massformer import open_image, to_rgb
from .console import console, error_console, fail, progress_bar
from .segment import DType, find_photos, write_image


def refine_photo(refiner: Refiner, photo: Path, label_map: Path, output: Path) -> str:
    """Refines one label map and returns its report."""
    start = time.perf_counter()
    image = to_rgb(open_image(photo))
    values = read_label(label_map, str(label_map))[0].numpy()
    if values.shape != (image.height, image.width):
        raise ValueError(
            f"{label_map} has {values.shape[1]} x {values.shape[0]} pixels, its photograph {image.width} x "
            f"{image.height} (width x height)."
        )
    refined = refiner(image, values)
    write_image(label_map_image(refined, int(refined.max()) + 1), output)
    changed = np.mean(refined != values)
    return f"{label_map} -> {output}: {changed:.2%} of the pixels changed, {time.perf_counter() - start:.1f} s"


def refine(
    paths: Annotated[list[str], typer.Argument(help="Photographs, folders of photographs, or globs in quotes.")],
    label_maps: Annotated[Path, typer.Option(help="Folder of their label maps, such as massformer segment's.")],
    model: Annotated[str, typer.Option(help="HQ-SAM: a folder or Hub name.")],
    output: Annotated[Path, typer.Option(help="Folder for the refined label maps.")],
    class_id: Annotated[
        list[int] | None, typer.Option("--class-id", help="Which classes; by default all but others (0).")
    ] = None,
    min_area: Annotated[float, typer.Option(help="Smaller parts are left; share of the photograph.")] = 1e-3,
    min_iou: Annotated[float, typer.Option(help="Masks that overlap less with their part are dropped.")] = 0.7,
    band: Annotated[float, typer.Option(help="How far from its boundary a part may change, per diagonal.")] = 0.01,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the fastest.")] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the weights.")] = DType.float32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Refine again what is done already.")] = False,
):
    """Prompts HQ-SAM with the parts of label maps and merges its masks back where both agree on what is meant."""
    logging.disable_progress_bar()
    try:
        photos = [found for argument in paths for found in find_photos(argument, output)]
        maps = LabelMapFolder(label_maps)
        refiner = Refiner(
            SamSegmenter.load(model, device or default_device(), getattr(torch, dtype)),
            class_id,
            min_area,
            min_iou,
            band,
        )
        if output.resolve() == label_maps.resolve():
            raise ValueError(f"Writing to {output} would replace the label maps. Choose another --output.")
    except (OSError, ValueError) as error:
        fail(error)
    failed = 0
    with progress_bar() as progress:
        try:
            for photo, relative in progress.track(photos, description="refining"):
                target = (output / relative).with_suffix(".png")
                if target.exists() and not overwrite:
                    console.print(f"{target} is there already; --overwrite makes it again.", markup=False)
                    continue
                try:
                    console.print(refine_photo(refiner, photo, maps.file(photo.stem), target), markup=False)
                except (OSError, ValueError, MemoryError) as error:
                    failed += 1
                    error_console.print(f"failed: {photo}: {error}", style="red", markup=False)
        except KeyboardInterrupt:
            fail("interrupted. What is finished is kept; the same command goes on from there.", code=130)
    if failed:
        fail(f"{failed} of {len(photos)} photographs failed.")
