"""massformer segment: write label maps of photographs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ..data.formats import FORMAT_HELP, AnnotationFormat
from .console import console, error_console, fail, fail_interrupted, open_jobs, progress_bar
from .options import (
    AllowTruncated,
    Device,
    DType,
    Flip,
    Inference,
    MaxMegapixels,
    NativeInput,
    Overlap,
    Overwrite,
    PeerPostprocess,
    Photographs,
    Precision,
    Scales,
    Tile,
    load_predictor,
    model_option,
    read_prediction_options,
)
from .segmenting import Extras, check_extras, job_standing, plan_jobs, record_class_names, segment_photo


def segment(
    paths: Photographs,
    model: Annotated[str, model_option("Model folder, Hub name, massformer-photo, or an ONNX or OpenVINO file.")],
    output: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the results; files are named after the photographs.")
    ],
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
    overwrite: Overwrite = False,
    device: Device = None,
    dtype: Precision = DType.float32,
    tile: Tile = None,
    overlap: Overlap = None,
    scales: Scales = "1",
    flip: Flip = False,
    native_input: NativeInput = False,
    peer_postprocess: PeerPostprocess = False,
    inference: Inference = "semantic",
    max_megapixels: MaxMegapixels = None,
    allow_truncated: AllowTruncated = False,
):
    """Write a label map of each photograph, upright and at its own size.

    Photographs that are finished are skipped; where the photograph, the model or an option has changed since, they are
    segmented again. Files that this command did not write, or that were changed since, are kept without --overwrite.
    The names of the model's classes are written to OUTPUT/classes.txt.
    """
    import torch
    from transformers.utils import logging

    from ..images import accept_photos
    from ..inference.identity import prediction_settings
    from ..inference.segmenter import Segmenter
    from ..utils.extras import require
    from ..utils.resuming import Results

    logging.disable_progress_bar()
    try:
        accept_photos(max_megapixels, allow_truncated)
        extras = Extras(
            overlay,
            show_semantic_priors,
            mattes,
            cutouts,
            tuple(bokeh or ()),
            bokeh_strength,
            refine_mattes,
            annotation_format,
        )
        options = read_prediction_options(tile, overlap, scales, flip, native_input, peer_postprocess, inference)
        jobs = plan_jobs(paths, output, extras, annotation_format.suffix)
        output.mkdir(parents=True, exist_ok=True)
        prediction = prediction_settings(model, options, dtype)
        results = Results(output)
        standings = [job_standing(results, extras.origins(job, prediction)) for job in jobs]
    except (OSError, ValueError) as error:
        fail(error)
    remaining, kept = open_jobs(jobs, standings, overwrite)
    if not remaining:
        if kept:
            raise typer.Exit(1)
        return
    if annotation_format is AnnotationFormat.coco_rle:
        require("pycocotools.mask", "coco", "--format coco-rle")
    try:
        predictor = load_predictor(model, device, getattr(torch, dtype), options)
        segmenter = Segmenter(predictor, semantic_priors=extras.priors, mattes=extras.need_mattes)
        check_extras(extras, segmenter.labels)
        record_class_names(output, segmenter.labels, results, remaining)
    except (OSError, ValueError, RuntimeError, AssertionError) as error:
        fail(error)
    precision = str(segmenter.dtype).removeprefix("torch.")
    count = "1 photograph" if len(remaining) == 1 else f"{len(remaining)} photographs"
    console.print(f"Segmenting {count} on {segmenter.device} in {precision}", markup=False)

    failed, start = 0, time.perf_counter()
    with progress_bar() as progress:
        try:
            for job in progress.track(remaining, description="segmenting"):
                try:
                    line = segment_photo(segmenter, job, extras, results, prediction)
                    console.print(line, markup=False)
                except (OSError, ValueError, RuntimeError, MemoryError) as error:
                    failed += 1
                    error_console.print(f"failed: {job.photo}: {error}", style="red", markup=False)
        except KeyboardInterrupt:
            fail_interrupted()
    done = len(remaining) - failed
    also_kept = f", {kept} kept" if kept else ""
    console.print(f"{done} segmented, {failed} failed{also_kept}, {time.perf_counter() - start:.1f} s")
    if failed or kept:
        raise typer.Exit(1)
