"""massformer segment: write label maps of photographs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..data.formats import FORMAT_HELP, AnnotationFormat
from .console import console, error_console, fail, fail_interrupted, progress_bar
from .options import (
    Device,
    DType,
    Flip,
    Inference,
    NativeInput,
    Overlap,
    PeerPostprocess,
    Photographs,
    Precision,
    Scales,
    Tile,
    load_predictor,
    model_option,
    read_prediction_options,
)


if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

    from ..inference.segmenter import Segmenter


@dataclass(frozen=True)
class Job:
    """A photograph and the files to write for it."""

    photo: Path
    label_map: Path
    overlay: Path | None = None
    priors: Path | None = None
    bokeh: Path | None = None
    # Folders with a picture of each class in the photograph.
    mattes: Path | None = None
    cutouts: Path | None = None

    @property
    def outputs(self) -> list[Path]:
        """Return all files and folders to write."""
        found = (self.label_map, self.overlay, self.priors, self.bokeh, self.mattes, self.cutouts)
        return [path for path in found if path is not None]


@dataclass(frozen=True)
class Extras:
    """
    Pictures to write beside label maps.

    Args:
        overlay (`bool`): Class colours over the photograph, with a legend.
        priors (`bool`): Semantic maps of a SeMask backbone.
        mattes (`bool`): A matte of each class.
        cutouts (`bool`): A cut-out of each class, transparent elsewhere.
        bokeh (`tuple[str, ...]`): Classes that stay in focus.
        strength (`float`): See [`bokeh`].
        refine (`bool`): Whether the edges of mattes follow the photograph's colours.
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
        """Return whether the segmenter has to compute mattes."""
        return self.mattes or self.cutouts or bool(self.bokeh)

    def job(self, photo: Path, label_map: Path) -> Job:
        """Return the job of a photograph, whose files are named after its label map."""

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


def check_extras(extras: Extras, labels: list[str]):
    """
    Check the pictures asked for before any photograph is segmented.

    Raises:
        MissingExtraError: If their library is not installed.
        ValueError: If the model lacks a class to keep in focus, or options contradict each other.
    """
    from ..editing.lens_blur import check_strength
    from ..editing.matting import matting_library

    if extras.refine and not extras.need_mattes:
        raise ValueError("--refine-mattes needs --mattes, --cutouts or --bokeh, which produce mattes to refine.")
    check_strength(extras.strength)
    unknown = [name for name in extras.bokeh if name not in labels]
    if unknown:
        raise ValueError(f"--bokeh {', '.join(unknown)}: the model has no such class, only {', '.join(labels)}.")
    if extras.cutouts or extras.bokeh or extras.refine:
        matting_library()


def plan_jobs(arguments: list[str], output: Path, extras: Extras, suffix: str = ".png") -> list[Job]:
    """
    Return a job for each photograph.

    Raises:
        ValueError: If two photographs share an output file, or an output would replace a photograph.
    """
    from ..images import find_photos

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
    """Write a PNG that is either complete or absent, even when interrupted."""
    from ..utils.files import written_whole

    with written_whole(path) as partial:
        image.save(partial, format="PNG")


def write_folder(pictures: Iterable[tuple[str, PIL.Image.Image]], folder: Path):
    """Write a folder with a PNG for each name, which is either complete or absent."""
    from ..utils.files import partial_path

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
    """Write mattes, cut-outs and bokeh of the classes in the label map."""
    import numpy as np
    import PIL.Image

    from ..editing import bokeh as out_of_focus
    from ..editing import cut_out, firm_matte, joined_matte, refine_matte
    from ..inference.mattes import as_array
    from ..utils.files import file_name

    present = [index for index in np.unique(label_map).tolist() if index < len(labels)]
    mattes = {labels[index]: PIL.Image.fromarray(class_mattes[index]) for index in present}
    if extras.refine:
        mattes = {name: refine_matte(photo, matte) for name, matte in mattes.items()}
    if job.mattes is not None:
        write_folder(((file_name(name), matte) for name, matte in mattes.items()), job.mattes)
    # Refined mattes are firm already.
    firm = as_array if extras.refine else firm_matte
    if job.cutouts is not None:
        write_folder(((file_name(name), cut_out(photo, firm(matte))) for name, matte in mattes.items()), job.cutouts)
    if job.bokeh is not None:
        focus = joined_matte([firm(mattes[name]) for name in extras.bokeh if name in mattes], photo.size)
        write_image(out_of_focus(photo, focus, extras.strength), job.bokeh)


def segment_photo(segmenter: Segmenter, job: Job, extras: Extras, palette: bool = True) -> str:
    """Segment one photograph, write its files and return a line of report."""
    from ..data.annotations import write_label_map
    from ..editing import overlay_image, priors_image, with_legend
    from ..images import open_image
    from ..utils.text import format_bytes

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
    # Last, because it marks the job as finished.
    write_label_map(result.label_map, job.label_map, labels, job.photo.name, palette)
    return (
        f"{job.photo} -> {job.label_map}: {photo.width} x {photo.height}, {segmenter.device}, "
        f"{str(segmenter.dtype).removeprefix('torch.')}, {result.seconds:.1f} s, "
        f"peak memory {format_bytes(result.peak_bytes)}"
    )


def segment(
    paths: Photographs,
    model: Annotated[str, model_option("Model folder, Hub name, massformer-photo, or an ONNX file.")],
    output: Annotated[Path, typer.Option(help="Folder for the results; files are named after the photographs.")],
    annotation_format: Annotated[
        AnnotationFormat,
        typer.Option("--format", help=FORMAT_HELP),
    ] = AnnotationFormat.png,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write NAME_overlay.png, with a legend.")] = False,
    mattes: Annotated[bool, typer.Option("--mattes", help="Also write soft masks, NAME_mattes/CLASS.png.")] = False,
    cutouts: Annotated[
        bool, typer.Option("--cutouts", help="Also write NAME_cutouts/CLASS.png, transparent elsewhere.")
    ] = False,
    bokeh: Annotated[
        list[str] | None,
        typer.Option(help="Also write NAME_bokeh.png, blurred outside this class. Repeatable for several classes."),
    ] = None,
    bokeh_strength: Annotated[float, typer.Option(help="Radius of the blur, as a share of the diagonal.")] = 0.01,
    refine_mattes: Annotated[
        bool, typer.Option("--refine-mattes", help="Fit the edges of mattes to the photograph's colours; slow.")
    ] = False,
    show_semantic_priors: Annotated[
        bool,
        typer.Option(
            "--show-semantic-priors",
            help="Also write NAME_semantic_priors.png: the classes of a SeMask backbone's four stages.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")] = False,
    device: Device = None,
    dtype: Precision = DType.float32,
    tile: Tile = None,
    overlap: Overlap = None,
    scales: Scales = "1",
    flip: Flip = False,
    native_input: NativeInput = False,
    peer_postprocess: PeerPostprocess = False,
    inference: Inference = "semantic",
):
    """Write a label map of each photograph, upright and at its own size.

    Finished photographs are skipped.
    """
    import torch
    from transformers.utils import logging

    from ..inference.segmenter import Segmenter
    from ..utils.extras import require

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
        console.print(f"{len(jobs) - len(open_jobs)} of {len(jobs)} are finished already; --overwrite replaces them.")
    if not open_jobs:
        return
    if annotation_format is AnnotationFormat.coco_rle:
        require("pycocotools.mask", "coco", "--format coco-rle")
    try:
        predictor = load_predictor(model, device, getattr(torch, dtype), options)
        segmenter = Segmenter(predictor, semantic_priors=extras.priors, mattes=extras.need_mattes)
        check_extras(extras, segmenter.labels)
    except (OSError, ValueError, RuntimeError, AssertionError) as error:
        fail(error)
    precision = str(segmenter.dtype).removeprefix("torch.")
    count = "1 photograph" if len(open_jobs) == 1 else f"{len(open_jobs)} photographs"
    console.print(f"Segmenting {count} on {segmenter.device} in {precision}", markup=False)

    palette = annotation_format is not AnnotationFormat.png_grey
    failed, start = 0, time.perf_counter()
    with progress_bar() as progress:
        try:
            for job in progress.track(open_jobs, description="segmenting"):
                try:
                    console.print(segment_photo(segmenter, job, extras, palette), markup=False)
                except (OSError, ValueError, RuntimeError, MemoryError) as error:
                    failed += 1
                    error_console.print(f"failed: {job.photo}: {error}", style="red", markup=False)
        except KeyboardInterrupt:
            fail_interrupted()
    done = len(open_jobs) - failed
    console.print(f"{done} segmented, {failed} failed, {time.perf_counter() - start:.1f} s")
    if failed:
        raise typer.Exit(1)
