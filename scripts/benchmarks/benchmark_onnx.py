"""
Measure time and memory of exported models beside the same models in PyTorch on the CPU, each in its own process. Adds
a section to the document of `benchmark_model.py`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import PIL.Image
import torch
import typer
from benchmark_model import check_choices, describe, split
from benchmark_record import DOCUMENT, RESULTS_FILE, Document, Record, ResultsFile, describe_run
from benchmark_report import key_text
from benchmark_worker import create, spread_offsets
from transformers.utils import logging

from transformers_massformer.cli.console import error_console as console
from transformers_massformer.cli.options import parse_size
from transformers_massformer.export import ExportOptions
from transformers_massformer.export.check import measure
from transformers_massformer.export.job import build_graphs
from transformers_massformer.scenes import render_scene


DEMO, SCENE_SEED = "demo", 91
GRAPHS = {"fp32": ExportOptions(), "plain": ExportOptions(plain_operators=True), "fp16": ExportOptions(half=True)}
EAGER = """
import json, sys
import numpy as np, PIL.Image
from transformers_massformer.inference.segmenter import Segmenter
found = Segmenter(sys.argv[1], "cpu")(PIL.Image.fromarray(np.load(sys.argv[2])))
print(json.dumps({"seconds": found.seconds, "peak_bytes": found.peak_bytes}))
"""


def model_folder(name: str, folder: Path) -> Path:
    """Return the folder of the demo model, or save a variant with random weights and spread offsets."""
    if name == DEMO:
        return Path("hub/massformer-photo")
    torch.manual_seed(0)
    model, processor = create(f"massformer-{name}")
    spread_offsets(model)
    model.save_pretrained(folder / name)
    processor.save_pretrained(folder / name)
    return folder / name


def measure_eager(model: Path, photo: PIL.Image.Image) -> dict[str, Any]:
    """Measure seconds and peak memory in PyTorch; `error` if the process failed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.npy"
        np.save(path, np.asarray(photo))
        command = [sys.executable, "-c", EAGER, str(model), str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        return {"error": (result.stderr.strip().splitlines() or ["killed"])[-1]}
    return json.loads(result.stdout.splitlines()[-1])


def measurement(name: str, engine: str, photo: PIL.Image.Image, took: dict[str, Any]) -> dict[str, Any]:
    """Turn what an engine took into a measurement."""
    key = {"model": name, "size": [photo.width, photo.height], "engine": engine}
    if "error" in took:
        return {"key": key, "status": "failed", "detail": took["error"]}
    return {"key": key, "status": "ok", "values": {value: took[value] for value in ("seconds", "peak_bytes")}}


def main(
    models: Annotated[str, typer.Option(help="demo, and variants with random weights, ...")] = "demo,r18-lite,r50",
    graphs: Annotated[str, typer.Option(help=f"Among {', '.join(GRAPHS)}; comma-separated.")] = ",".join(GRAPHS),
    sizes: Annotated[str, typer.Option(help="Photo sizes, WIDTHxHEIGHT, ...")] = "2048x1536,4096x3072",
    rounds: Annotated[int, typer.Option(help="Measurements of each figure.", min=1)] = 2,
    results_file: ResultsFile = RESULTS_FILE,
    output: Document = DOCUMENT,
):
    logging.disable_progress_bar()
    chosen = check_choices(split(graphs), GRAPHS, "--graphs")
    photos = [PIL.Image.fromarray(render_scene(SCENE_SEED, 0, parse_size(size)).image) for size in split(sizes)]
    record = Record(results_file, output)
    source = describe_run(__file__, "cpu", rounds)
    with tempfile.TemporaryDirectory(prefix="massformer-onnx-") as work:
        folder = Path(work)
        for name in split(models):
            model = model_folder(name, folder)
            exported = {graph: folder / f"{name}-{graph}.onnx" for graph in chosen}
            for graph, path in exported.items():
                onnx.save(build_graphs(model, GRAPHS[graph])[1], path)
            for photo in photos * rounds:
                found = [measurement(name, "PyTorch", photo, measure_eager(model, photo))]
                found += [measurement(name, graph, photo, measure(path, photo)) for graph, path in exported.items()]
                for each in found:
                    console.print(f"{key_text(each['key'])}: {describe(each)}", markup=False)
                    record.add("cpu", "onnx", source, each)
    record.write_document()


if __name__ == "__main__":
    typer.run(main)
