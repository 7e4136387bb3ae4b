"""
Errors of mattes on scenes, whose true alpha is known: of the label map taken as a matte, of the model's soft mattes,
and of those refined by the photograph's colours. Adds a section to the document of `benchmark_model.py`.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import torch
import typer
from benchmark_model import console, describe_run, write_whole
from benchmark_report import Results, add_measurement, render
from rich.progress import track
from scipy import ndimage

from transformers_massformer.data.layout import find_splits
from transformers_massformer.editing import refine_matte
from transformers_massformer.images import read_photo
from transformers_massformer.inference.segmenter import Segmenter


# Of the derivatives of Gaussians in the gradient error (Rhemann et al. 2009).
GRADIENT_SIGMA = 1.4
# Less of a class than this in a scene says nothing of its edges.
LEAST_SHARE = 1e-3


def gradient(alpha: np.ndarray) -> np.ndarray:
    """How steep a matte is."""
    along = [ndimage.gaussian_filter(alpha, GRADIENT_SIGMA, order=order) for order in ((0, 1), (1, 0))]
    return np.hypot(*along)


def errors(found: np.ndarray, alpha: np.ndarray) -> dict[str, float]:
    """
    Errors of a matte from 0 to 1, per megapixel where they are sums: SAD and gradient error in thousands, MSE in
    thousandths, as is usual.
    """
    megapixels = alpha.size / 1e6
    difference = found - alpha
    return {
        "sad": float(np.abs(difference).sum() / 1e3 / megapixels),
        "mse": float((difference**2).mean() * 1e3),
        "gradient": float(((gradient(found) - gradient(alpha)) ** 2).sum() / 1e3 / megapixels),
    }


def main(
    data: Annotated[Path, typer.Option(help="Scenes with --alpha, split val.")],
    model: Annotated[str, typer.Option(help="Folder of the model.")] = "hub/massformer-demo",
    classes: Annotated[str, typer.Option(help="Whose mattes.")] = "human,vegetation",
    results_file: Annotated[Path, typer.Option(help="Figures of all benchmarks.")] = Path("docs/benchmarks.json"),
    output: Annotated[Path, typer.Option(help="The document.")] = Path("docs/benchmarks.md"),
):
    segmenter = Segmenter(model, "cpu", torch.float32, mattes=True)
    pairs = find_splits(data)["validation"].pairs
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for pair in track(pairs, "scenes", console=console):
        photo = read_photo(pair.image, str(pair.image))[0]
        segmentation = segmenter(photo)
        for name in classes.split(","):
            index = segmenter.labels.index(name)
            with PIL.Image.open(data / "alphas" / "val" / pair.image_id / f"{name}.png") as image:
                alpha = np.asarray(image).astype(np.float32) / 255
            if alpha.mean() < LEAST_SHARE or segmentation.mattes is None:
                continue
            soft = segmentation.mattes[index]
            start = time.perf_counter()
            refined = np.asarray(refine_matte(photo, PIL.Image.fromarray(soft)))
            seconds = (time.perf_counter() - start) / (alpha.size / 1e6)
            mattes = {"label map": (segmentation.label_map == index) * 255, "soft": soft, "refined": refined}
            for method, matte in mattes.items():
                measured = errors(matte.astype(np.float32) / 255, alpha)
                measured["seconds"] = seconds if method == "refined" else 0.0
                found.setdefault((name, method), []).append(measured)
    results: Results = json.loads(results_file.read_text()) if results_file.exists() else {}
    source = describe_run("cpu", 1, None, 0, Path(__file__).name)
    for (name, method), each in found.items():
        values = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
        key = {"class": name, "matte": method, "scenes": len(each)}
        add_measurement(results, "cpu", "mattes", source, {"key": key, "status": "ok", "values": values})
    write_whole(results_file, json.dumps(results, indent=1) + "\n")
    write_whole(output, render(results, results_file.name))


if __name__ == "__main__":
    typer.run(main)
