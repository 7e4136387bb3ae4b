"""
Time and memory of exported models beside the same models in PyTorch, on the CPU, each in a process of its own, side by
side. Adds a section to the document of `benchmark_model.py`.
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
from benchmark_model import check_choices, console, describe_run, parse_size, split, write_whole
from benchmark_report import Results, add_measurement, render
from benchmark_worker import create, spread_offsets
from transformers.utils import logging

from transformers_massformer.export import ExportOptions
from transformers_massformer.export.check import measure
from transformers_massformer.export.job import build_graphs
from transformers_massformer.scenes import render_scene


DEMO, SCENE_SEED = "demo", 91
GRAPHS = {
    "fp32": ExportOptions(),
    "plain": ExportOptions(plain_operators=True),
    "fp16": ExportOptions(half=True),
}
EAGER = """
import json, sys
import numpy as np, PIL.Image
from transformers_massformer.inference.segmenter import Segmenter
found = Segmenter(sys.argv[1], "cpu")(PIL.Image.fromarray(np.load(sys.argv[2])))
print(json.dumps({"seconds": found.seconds, "peak_bytes": found.peak_bytes}))
"""


def model_folder(name: str, folder: Path) -> Path:
    """The demo model, or a variant with random weights and offsets that are spread as in a trained one."""
    if name == DEMO:
        return Path("hub/massformer-demo")
    torch.manual_seed(0)
    model, processor = create(f"massformer-{name}")
    spread_offsets(model)
    model.save_pretrained(folder / name)
    processor.save_pretrained(folder / name)
    return folder / name


def measure_eager(model: Path, photo: PIL.Image.Image) -> dict[str, Any]:
    """Seconds and peak memory in PyTorch, or `error`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.npy"
        np.save(path, np.asarray(photo))
        command = [sys.executable, "-c", EAGER, str(model), str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        return {"error": (result.stderr.strip().splitlines() or ["killed"])[-1]}
    return json.loads(result.stdout.splitlines()[-1])


def main(
    models: Annotated[str, typer.Option(help="demo, and variants with random weights.")] = "demo,r18-lite,r50",
    graphs: Annotated[str, typer.Option(help=f"Of {', '.join(GRAPHS)}.")] = ",".join(GRAPHS),
    sizes: Annotated[str, typer.Option(help="WIDTHxHEIGHT of photographs.")] = "2048x1536,4096x3072",
    rounds: Annotated[int, typer.Option(help="Times that all is measured.")] = 2,
    results_file: Annotated[Path, typer.Option(help="Figures of all benchmarks.")] = Path("docs/benchmarks.json"),
    output: Annotated[Path, typer.Option(help="The document.")] = Path("docs/benchmarks.md"),
):
    logging.disable_progress_bar()
    chosen = check_choices(split(graphs), GRAPHS, "graph")
    chosen_sizes = [(width, height) for width, height in map(parse_size, split(sizes))]
    photos = [PIL.Image.fromarray(render_scene(SCENE_SEED, 0, size).image) for size in chosen_sizes]
    results: Results = json.loads(results_file.read_text()) if results_file.exists() else {}
    source = describe_run("cpu", rounds, None, 0, Path(__file__).name)
    with tempfile.TemporaryDirectory(prefix="massformer-onnx-") as work:
        folder = Path(work)
        for name in split(models):
            model = model_folder(name, folder)
            for graph in chosen:
                onnx.save(build_graphs(model, GRAPHS[graph])[1], folder / f"{name}-{graph}.onnx")
            for photo in photos * rounds:
                for engine in ("PyTorch", *chosen):
                    is_torch = engine == "PyTorch"
                    took = (measure_eager if is_torch else measure)(
                        model if is_torch else folder / f"{name}-{engine}.onnx", photo
                    )
                    key = {"model": name, "size": [photo.width, photo.height], "engine": engine}
                    measured = {"key": key, "status": "failed" if "error" in took else "ok"}
                    if "error" in took:
                        measured["detail"] = took["error"]
                    else:
                        measured["values"] = {"seconds": took["seconds"], "peak_bytes": took["peak_bytes"]}
                    console.print(measured)
                    add_measurement(results, "cpu", "onnx", source, measured)
                    write_whole(results_file, json.dumps(results, indent=1) + "\n")
    write_whole(output, render(results, results_file.name))


if __name__ == "__main__":
    typer.run(main)
