"""massformer export: a model as an ONNX file."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from transformers.utils import logging

from ..export import ExportOptions, export_onnx
from ..export.job import SIZE
from ..inference.memory import out_of_memory
from .console import console, fail
from .scenes import parse_size


class OnnxDType(StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"


def report_lines(report: dict[str, Any]) -> list[str]:
    """What people want to know of a report."""
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
    model: Annotated[str, typer.Option(help="Folder (or Hub name) of the model.")],
    output: Annotated[Path, typer.Option(help="The ONNX file; the report beside it has its name with .json.")],
    opset: Annotated[int, typer.Option(help="Version of ONNX's operators.")] = 20,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="For photographs of any size.")] = False,
    size: Annotated[
        str | None, typer.Option(help=f"Without --dynamic, the photographs' WIDTHxHEIGHT; {SIZE[0]}x{SIZE[1]}.")
    ] = None,
    dtype: Annotated[OnnxDType, typer.Option(help="Precision of the weights.")] = OnnxDType.fp32,
    plain_ops: Annotated[
        bool, typer.Option("--plain-ops", help="GridSample instead of DeformConv, for runtimes without it.")
    ] = False,
    queries: Annotated[
        bool, typer.Option("--queries", help="Give the logits of all queries instead of a label map.")
    ] = False,
    photo: Annotated[
        list[Path] | None, typer.Option(help="Photograph to compare the export with PyTorch on; may be repeated.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
):
    """
    Writes a MaSSFormer as an ONNX file, from a photograph's bytes to its label map, compares it with PyTorch, and
    measures it. A float32 file that does not give the same label at 99.99 % of the pixels is not kept.
    """
    logging.disable_progress_bar()
    try:
        if output.suffix.lower() != ".onnx":
            raise ValueError(f"{output} must end in .onnx.")
        if output.exists() and not overwrite:
            raise ValueError(f"{output} exists. Choose another --output, or replace it with --overwrite.")
        if dynamic and size is not None:
            raise ValueError(f"--dynamic takes photographs of any size; leave out --size {size}.")
        fixed = None if dynamic else SIZE if size is None else parse_size(size)
        options = ExportOptions(opset, fixed, dtype is OnnxDType.fp16, plain_ops, queries)
        with out_of_memory(
            "The comparison with PyTorch does not fit into memory. Choose a smaller --size or --photo."
        ):
            report = export_onnx(model, output, options, photo or (), lambda step: console.print(f"{step} ..."))
    except (ImportError, OSError, ValueError, RuntimeError, MemoryError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("interrupted. Nothing was written.", code=130)
    for line in report_lines(report):
        console.print(line, markup=False)
    console.print(f"{output} and {output.with_suffix('.json')} are written.", markup=False)
