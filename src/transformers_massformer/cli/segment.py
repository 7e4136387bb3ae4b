"""massformer segment: label maps for photographs."""

import glob
import itertools
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import torch
import typer
from transformers.utils import logging

from ..data.annotations import AnnotationFormat, write_label_map
from ..editing import bokeh as out_of_focus
from ..editing import cut_out, firm_matte, joined_matte, overlay_image, priors_image, refine_matte, with_legend
from ..editing.lens_blur import check_strength
from ..editing.matting import matting_library
from ..inference.mattes import as_array
from ..inference.segmenter import Segmenter
from ..models.image_processing_massformer import open_image
from ..utils.files import file_name, partial_path, written_whole
from ..utils.text import format_bytes
from .console import console, error_console, fail, progress_bar
from .prediction import (
    Flip,
    Inference,
    NativeInput,
    Overlap,
    PeerPostprocess,
    Scales,
    Tile,
    load_predictor,
    read_prediction_options,
)


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
    overlay: Path | None = None
    priors: Path | None = None
    bokeh: Path | None = None
    # Folders with a picture for each class that the photograph shows.
    mattes: Path | None = None
    cutouts: Path | None = None

    @property
    def outputs(self) -> list[Path]:
        found = (self.label_map, self.overlay, self.priors, self.bokeh, self.mattes, self.cutouts)
        return [path for path in found if path is not None]


@dataclass(frozen=True)
class Extras:
    """
    What is written beside label maps.

    Args:
        overlay (`bool`): The classes' colours over the photograph, with a legend.
        priors (`bool`): The semantic maps of a SeMask backbone.
        mattes (`bool`): A matte of each class.
        cutouts (`bool`): Each class by itself, transparent elsewhere.
        bokeh (`tuple[str, ...]`): Classes that stay in focus.
        strength (`float`): See [`bokeh`].
        refine (`bool`): Whether mattes follow the photograph's colours.
    """

    overlay: bool = False
    priors: bool = False
    mattes: bool = False
    cutouts: bool = False
    bokeh: tuple[str, ...] = ()
    strength: float = 0.01
    refine: bool = False

    @property
    def need_mattes(self) -> bool:
        return self.mattes or self.cutouts or bool(self.bokeh)

    def job(self, photo: Path, label_map: Path) -> Job:
        """The files for a photograph, named like its label map."""

        def beside(name: str, wanted: object, suffix: str = ".png") -> Path | None:
            return label_map.with_name(f"{label_map.stem}_{name}{suffix}") if wanted else None

        return Job(
            photo,
            label_map,
            overlay=beside("overlay", self.overlay),
            priors=beside("semantic_priors", self.priors),
            bokeh=beside("bokeh", self.bokeh),
            mattes=beside("mattes", self.mattes, ""),
            cutouts=beside("cutouts", self.cutouts, ""),
        )


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


def check_extras(extras: Extras, labels: list[str]):
    """
    Raises:
        ImportError: If the library for them is missing.
        ValueError: If a class in focus is none of the model's, or options do not go together.
    """
    if extras.refine and not extras.need_mattes:
        raise ValueError("--refine-mattes goes with --mattes, --cutouts or --bokeh, which have mattes to refine.")
    check_strength(extras.strength)
    unknown = [name for name in extras.bokeh if name not in labels]
    if unknown:
        raise ValueError(f"The model knows no {', '.join(unknown)} to keep in focus; it knows {', '.join(labels)}.")
    if extras.cutouts or extras.bokeh or extras.refine:
        matting_library()


def plan_jobs(arguments: list[str], output: Path, extras: Extras, suffix: str = ".png") -> list[Job]:
    """One job per photograph; raises a ValueError if two files of the whole run would be one."""
    jobs = {}
    for argument in arguments:
        for photo, relative in find_photos(argument, output):
            label_map = (output / relative).with_suffix(suffix)
            job = extras.job(photo, label_map)
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


def write_folder(pictures: Iterable[tuple[str, PIL.Image.Image]], folder: Path):
    """A folder with a PNG for each name, whole or absent."""
    partial = partial_path(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, picture in pictures:
        picture.save(partial / f"{name}.png", format="PNG")
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def write_edits(
    photo: PIL.Image.Image,
    label_map: np.ndarray,
    class_mattes: np.ndarray,
    job: Job,
    labels: list[str],
    extras: Extras,
):
    """Mattes of the classes that the label map has, and what is made with them."""
    present = [index for index in np.unique(label_map).tolist() if index < len(labels)]
    mattes = {labels[index]: PIL.Image.fromarray(class_mattes[index]) for index in present}
    if extras.refine:
        mattes = {name: refine_matte(photo, matte) for name, matte in mattes.items()}
    if job.mattes is not None:
        write_folder(((file_name(name), matte) for name, matte in mattes.items()), job.mattes)
    # Refined ones are firm already.
    firm = as_array if extras.refine else firm_matte
    if job.cutouts is not None:
        write_folder(((file_name(name), cut_out(photo, firm(matte))) for name, matte in mattes.items()), job.cutouts)
    if job.bokeh is not None:
        focus = joined_matte([firm(mattes[name]) for name in extras.bokeh if name in mattes], photo.size)
        write_image(out_of_focus(photo, focus, extras.strength), job.bokeh)


def segment_photo(segmenter: Segmenter, job: Job, extras: Extras) -> str:
    """Does one job and returns its report."""
    photo = open_image(job.photo)
    result = segmenter(photo)
    labels = segmenter.labels
    if job.overlay is not None:
        overlay = overlay_image(photo, result.label_map, len(labels))
        write_image(with_legend(overlay, result.label_map, labels), job.overlay)
    if result.mattes is not None:
        write_edits(photo, result.label_map, result.mattes, job, labels, extras)
    if job.priors is not None:
        write_image(
            priors_image(photo, result.semantic_priors or [], segmenter.predictor.num_semantic_labels or 0), job.priors
        )
    # Last, because it marks the job as done.
    write_label_map(result.label_map, job.label_map, labels, job.photo.name)
    return (
        f"{job.photo} -> {job.label_map}: {photo.width} x {photo.height}, {segmenter.device}, "
        f"{str(segmenter.dtype).removeprefix('torch.')}, {result.seconds:.1f} s, "
        f"peak memory {format_bytes(result.peak_bytes)}"
    )


def segment(
    paths: Annotated[list[str], typer.Argument(help="Photographs, folders of photographs, or globs in quotes.")],
    model: Annotated[str, typer.Option(help="Folder (or Hub name) of the model, or an ONNX file.")],
    output: Annotated[Path, typer.Option(help="Folder for the results: one file per photograph, named like it.")],
    annotation_format: Annotated[
        AnnotationFormat,
        typer.Option("--format", help="png: class indices with a palette; coco-rle: JSON, a mask of each class."),
    ] = AnnotationFormat.png,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write NAME_overlay.png, with a legend.")] = False,
    mattes: Annotated[bool, typer.Option("--mattes", help="Also write NAME_mattes/CLASS.png, soft masks.")] = False,
    cutouts: Annotated[
        bool, typer.Option("--cutouts", help="Also write NAME_cutouts/CLASS.png, transparent elsewhere.")
    ] = False,
    bokeh: Annotated[
        list[str] | None, typer.Option(help="Also write NAME_bokeh.png, in which all but this class is out of focus.")
    ] = None,
    bokeh_strength: Annotated[float, typer.Option(help="Radius of the blur, as a share of the diagonal.")] = 0.01,
    refine_mattes: Annotated[
        bool, typer.Option("--refine-mattes", help="Let edges of mattes follow the photograph's colours; slow.")
    ] = False,
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
    tile: Tile = None,
    overlap: Overlap = None,
    scales: Scales = "1",
    flip: Flip = False,
    native_input: NativeInput = False,
    peer_postprocess: PeerPostprocess = False,
    inference: Inference = "semantic",
):
    """Writes a label map of each photograph, at its size and upright."""
    logging.disable_progress_bar()
    try:
        extras = Extras(
            overlay, show_semantic_priors, mattes, cutouts, tuple(bokeh or ()), bokeh_strength, refine_mattes
        )
        options = read_prediction_options(tile, overlap, scales, flip, native_input, peer_postprocess, inference)
        jobs = plan_jobs(paths, output, extras, annotation_format.suffix)
        output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        fail(error)
    open_jobs = [job for job in jobs if overwrite or not all(path.exists() for path in job.outputs)]
    if len(open_jobs) < len(jobs):
        console.print(f"{len(jobs) - len(open_jobs)} of {len(jobs)} are done already; --overwrite does them again.")
    if not open_jobs:
        return
    try:
        predictor = load_predictor(model, device, getattr(torch, dtype), options)
        segmenter = Segmenter(predictor, semantic_priors=extras.priors, mattes=extras.need_mattes)
        check_extras(extras, segmenter.labels)
    except (ImportError, OSError, ValueError, RuntimeError, AssertionError) as error:
        fail(error)
    precision = str(segmenter.dtype).removeprefix("torch.")
    console.print(f"{len(open_jobs)} to do on {segmenter.device} in {precision}", markup=False)

    failed, start = 0, time.perf_counter()
    with progress_bar() as progress:
        try:
            for job in progress.track(open_jobs, description="segmenting"):
                try:
                    console.print(segment_photo(segmenter, job, extras), markup=False)
                except (OSError, ValueError, RuntimeError, MemoryError) as error:
                    failed += 1
                    error_console.print(f"failed: {job.photo}: {error}", style="red", markup=False)
        except KeyboardInterrupt:
            fail("interrupted. What is finished is kept; the same command goes on from there.", code=130)
    done = len(open_jobs) - failed
    console.print(f"{done} segmented, {failed} failed, {time.perf_counter() - start:.1f} s")
    if failed:
        raise typer.Exit(1)
