"""massformer segment: write label maps of photographs."""

from __future__ import annotations

from typing import Annotated

import typer

from ..data.formats import FORMAT_HELP, ResultFormat
from ..segmenting.jobs import Extras
from .cluster import Cluster, segment_on_cluster
from .console import fail
from .local import Request, segment_here
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
    folder_name,
    model_option,
    read_prediction_options,
)


def segment(
    paths: Photographs,
    model: Annotated[str, model_option("Model folder, Hub name, massformer-photo, or an ONNX file.")],
    output: Annotated[
        str, typer.Option(callback=folder_name, help="Folder for the results; files are named after the photographs.")
    ],
    result_format: Annotated[
        ResultFormat,
        typer.Option("--format", help=f"{FORMAT_HELP} parquet: files of many photographs, with --ray."),
    ] = ResultFormat.png,
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
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Threads that read and write photographs while the model computes; 0: one after the other. Default: "
            "up to 4.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Segment on a Ray cluster: auto, HOST:6379, or local to start one here. Photographs may then also be "
            "URIs such as s3://bucket/folder, and Parquet files."
        ),
    ] = None,
    num_actors: Annotated[
        int | None, typer.Option(min=1, help="Processes with a model each. Default: as many as the cluster holds.")
    ] = None,
    cpus_per_actor: Annotated[
        int | None, typer.Option(min=1, help="CPUs and threads of each process. Default: up to 2.")
    ] = None,
    gpus_per_actor: Annotated[
        float, typer.Option(min=0, help="GPUs of each process, such as 1, or 0.5 to share one. Default: none.")
    ] = 0,
    image_column: Annotated[
        str | None,
        typer.Option(help="Column of Parquet files with paths or images. Default: image, bytes, path or file_name."),
    ] = None,
):
    """Write a label map of each photograph, upright and at its own size.

    Photographs that are finished are skipped; where the photograph, the model or an option has changed since, they are
    segmented again. Files that this command did not write, or that were changed since, are kept without --overwrite.
    The names of the model's classes are written to OUTPUT/classes.txt.

    Several processes share the photographs: accelerate launch (or torchrun) -m transformers_massformer.cli segment ...
    """
    from transformers.utils import logging

    from ..images import accept_photos

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
            result_format.of_label_maps,
        )
        options = read_prediction_options(tile, overlap, scales, flip, native_input, peer_postprocess, inference)
    except ValueError as error:
        fail(error)
    request = Request(paths, model, output, extras, options, device, dtype, overwrite, workers)
    if ray is None:
        segment_here(request)
        return
    is_parquet = result_format is ResultFormat.parquet
    limits = max_megapixels, allow_truncated
    segment_on_cluster(
        request, Cluster(ray, num_actors, cpus_per_actor, gpus_per_actor, image_column, is_parquet, limits)
    )
