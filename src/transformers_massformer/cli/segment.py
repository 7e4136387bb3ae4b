"""massformer segment: label maps for photographs."""

import glob
import itertools
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import PIL.Image
import torch
import typer
from transformers.utils import logging

from ..editing import label_map_image, overlay_image, priors_image
from ..files import written_whole
from ..image_processing_massformer import open_image
from ..inference import Segmenter
from .console import console, error_console, fail, progress_bar


PHOTO_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class DType(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass(frozen=True)
class Job:
    """One photograph and the files made from it."""

    photo: Path
    label_map: Path
    overlay: Path | None
    priors: Path | None

    @property
    def outputs(self) -> list[Path]:
        return [path for path in (self.label_map, self.overlay, self.priors) if path is not None]


def find_photos(argument: str, output: Path) -> list[tuple[Path, Path]]:
    """The photographs that an argument names, each with its path relative to the folder given."""
    path = Path(argument)
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        if path.resolve() == output.resolve():
            raise ValueError(f"{path} holds the photographs; give the results a folder of their own with --output.")
        root, found = path, sorted(path.rglob("*"))
    elif glob.has_magic(argument):
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
        root, found = Path(*fixed), sorted(Path(name) for name in glob.glob(argument, recursive=True))
    else:
        raise FileNotFoundError(f"There is no file or folder {argument}.")
    # What an earlier run wrote into a folder among the photographs is not a photograph.
    results = output.resolve() if root.resolve() in output.resolve().parents else None
    photos = [
        photo
        for photo in found
        if photo.is_file() and photo.suffix.lower() in PHOTO_SUFFIXES and results not in photo.resolve().parents
    ]
    if not photos:
        raise FileNotFoundError(f"{argument} names no photographs ({', '.join(sorted(PHOTO_SUFFIXES))}).")
    return [(photo, photo.relative_to(root)) for photo in photos]


def plan_jobs(arguments: list[str], output: Path, overlay: bool, priors: bool = False) -> list[Job]:
    """One job per photograph; raises a ValueError if two files of the whole run would be one."""
    jobs = {}
    for argument in arguments:
        for photo, relative in find_photos(argument, output):
            label_map = (output / relative).with_suffix(".png")
            job = Job(
                photo,
                label_map,
                label_map.with_stem(f"{label_map.stem}_overlay") if overlay else None,
                label_map.with_stem(f"{label_map.stem}_semantic_priors") if priors else None,
            )
            jobs[photo.resolve(), label_map] = job
    owners: dict[Path, Path] = {job.photo.resolve(): job.photo for job in jobs.values()}
    for job in jobs.values():
        for path in job.outputs:
            other = owners.setdefault(path.resolve(), job.photo)
            if path.resolve() == other.resolve():
                raise ValueError(f"Writing {path} would replace the photograph {other}. Choose another --output.")
            if other != job.photo or job.outputs.count(path) > 1:
                raise ValueError(
                    f"{other} and {job.photo} would both be written to {path}. Rename one, or segment them into "
                    "different folders."
                )
    return list(jobs.values())


def write_image(image: PIL.Image.Image, path: Path):
    """Writes a PNG that is either whole or absent, also when interrupted."""
    with written_whole(path) as partial:
        image.save(partial, format="PNG")


def segment_photo(segmenter: Segmenter, job: Job) -> str:
    """Does one job and returns its report."""
    photo = open_image(job.photo)
    result = segmenter(photo)
    if job.overlay is not None:
        write_image(overlay_image(photo, result.label_map, segmenter.num_labels), job.overlay)
    if job.priors is not None:
        write_image(priors_image(photo, result.semantic_priors or [], segmenter.num_semantic_labels or 0), job.priors)
    # Last, because it marks the job as done.
    write_image(label_map_image(result.label_map, segmenter.num_labels), job.label_map)
    peak = "unknown" if result.peak_bytes is None else f"{result.peak_bytes / 2**30:.2f} GiB"
    return (
        f"{job.photo} -> {job.label_map}: {photo.width} x {photo.height}, {segmenter.device}, "
        f"{str(segmenter.dtype).removeprefix('torch.')}, {result.seconds:.1f} s, "
        f"peak memory {peak}"
    )


def segment(
    paths: Annotated[list[str], typer.Argument(help="Photographs, folders of photographs, or globs in quotes.")],
    model: Annotated[str, typer.Option(help="Folder (or Hub name) of the model.")],
    output: Annotated[Path, typer.Option(help="Folder for the results: one PNG per photograph, named like it.")],
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write NAME_overlay.png.")] = False,
    show_semantic_priors: Annotated[
        bool,
        typer.Option(
            "--show-semantic-priors",
            help="Also write NAME_semantic_priors.png: the classes of a SeMask backbone's four stages.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Segment again what is done already.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the fastest.")] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the weights.")] = DType.float32,
    tile: Annotated[int | None, typer.Option(help="Segment in tiles of so many pixels; by default whole.")] = None,
):
    """Writes a label map of each photograph, at its size and upright, as a PNG with a palette."""
    logging.disable_progress_bar()
    try:
        jobs = plan_jobs(paths, output, overlay, show_semantic_priors)
        output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        fail(error)
    open_jobs = [job for job in jobs if overwrite or not all(path.exists() for path in job.outputs)]
    if len(open_jobs) < len(jobs):
        console.print(f"{len(jobs) - len(open_jobs)} of {len(jobs)} are done already; --overwrite does them again.")
    if not open_jobs:
        return
    try:
        segmenter = Segmenter(model, device, getattr(torch, dtype), tile, show_semantic_priors)
    except (OSError, ValueError, RuntimeError, AssertionError) as error:
        fail(error)
    console.print(f"{len(open_jobs)} to do on {segmenter.device} in {dtype}", markup=False)

    failed, start = 0, time.perf_counter()
    with progress_bar() as progress:
        try:
            for job in progress.track(open_jobs, description="segmenting"):
                try:
                    console.print(segment_photo(segmenter, job), markup=False)
                except (OSError, ValueError, RuntimeError, MemoryError) as error:
                    failed += 1
                    error_console.print(f"failed: {job.photo}: {error}", style="red", markup=False)
        except KeyboardInterrupt:
            fail("interrupted. What is finished is kept; the same command goes on from there.", code=130)
    done = len(open_jobs) - failed
    console.print(f"{done} segmented, {failed} failed, {time.perf_counter() - start:.1f} s")
    if failed:
        raise typer.Exit(1)
