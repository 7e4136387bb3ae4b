"""massformer export: write a model as an ONNX file."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import console, fail, fail_interrupted
from .options import model_option, parse_size


class OnnxDType(StrEnum):
    """Precisions of an ONNX file's weights."""

    fp32 = "fp32"
    fp16 = "fp16"


def report_lines(report: dict[str, Any]) -> list[str]:
    """Summarize a report for display."""
    lines = [
        f"{each['photo']}, {each['width']} x {each['height']}: same label at {each['argmax_agreement']:.4%} of the "
        f"pixels; largest differences {each['class_difference']:.1e} (classes), {each['mask_difference']:.1e} (masks)"
        for each in report["agreement"]
    ]
    took = report["performance"]
    size = f"{took['width']} x {took['height']} pixels on the CPU"
    if "error" in took:
        return [*lines, f"{size}: did not finish ({took['error']})"]
    memory = "unknown" if took["peak_bytes"] is None else f"{took['peak_bytes'] / 2**30:.2f} GiB"
    return [*lines, f"{size}: {took['seconds']:.1f} s, peak memory {memory}"]


def export(
    model: Annotated[str, model_option("Model folder, Hub name, or massformer-photo.")],
    output: Annotated[
        Path, typer.Option(dir_okay=False, help="ONNX file to write; the report goes to the same name with .json.")
    ],
    opset: Annotated[int, typer.Option(help="Version of ONNX's operators.")] = 20,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Accept photographs of any size.")] = False,
    size: Annotated[
        str | None, typer.Option(help="Size of the photographs without --dynamic, WIDTHxHEIGHT. Default: 4096x3072.")
    ] = None,
    dtype: Annotated[OnnxDType, typer.Option(help="Precision of the weights.")] = OnnxDType.fp32,
    plain_ops: Annotated[
        bool, typer.Option("--plain-ops", help="Use GridSample instead of DeformConv, for runtimes without it.")
    ] = False,
    queries: Annotated[
        bool, typer.Option("--queries", help="Return the logits of all queries instead of a label map.")
    ] = False,
    photo: Annotated[
        list[Path] | None, typer.Option(help="Photograph to compare the export with PyTorch on. Repeatable.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
):
    """
    Write a MaSSFormer as an ONNX file that maps a photograph's bytes to its label map.

    The file is compared with PyTorch and measured. A float32 file that gives the same label at less than 99.99 % of
    the pixels is not kept.
    """
    from transformers.utils import logging

    from ..export import ExportOptions, export_onnx
    from ..export.job import SIZE
    from ..inference.memory import out_of_memory

    logging.disable_progress_bar()
    try:
        if output.suffix.lower() != ".onnx":
            raise ValueError(f"{output} must end in .onnx.")
        for path in (output, output.with_suffix(".json")):
            if path.exists() and not overwrite:
                raise ValueError(f"{path} exists. Choose another --output, or replace it with --overwrite.")
        if dynamic and size is not None:
            raise ValueError(f"--dynamic accepts photographs of any size; leave out --size {size}.")
        fixed = None if dynamic else SIZE if size is None else parse_size(size)
        options = ExportOptions(opset, fixed, dtype is OnnxDType.fp16, plain_ops, queries)
        with out_of_memory(
            "The comparison with PyTorch does not fit into memory. Choose a smaller --size or --photo."
        ):
            report = export_onnx(model, output, options, photo or (), lambda step: console.print(f"{step} ..."))
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail_interrupted("Nothing was written.")
    for line in report_lines(report):
        console.print(line, markup=False)
    console.print(f"Wrote {output} and {output.with_suffix('.json')}", markup=False)
