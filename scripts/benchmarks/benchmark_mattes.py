"""
Measure the errors of mattes on scenes with exact alpha: of the label map used as a matte, of the model's soft mattes,
and of those refined with the photo's colours. Adds a section to the document of `benchmark_model.py`.
"""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import torch
import typer
from benchmark_record import DOCUMENT, RESULTS_FILE, Document, Record, ResultsFile, describe_run
from rich.progress import track
from scipy import ndimage

from transformers_massformer.cli.console import error_console as console
from transformers_massformer.data.layout import find_splits
from transformers_massformer.editing import refine_matte
from transformers_massformer.images import read_photo
from transformers_massformer.inference.segmenter import Segmenter


# Standard deviation of the Gaussian derivatives in the gradient error (Rhemann et al. 2009).
GRADIENT_SIGMA = 1.4
# Scenes in which a class covers a smaller share are skipped.
LEAST_SHARE = 1e-3


def gradient(alpha: np.ndarray) -> np.ndarray:
    """Compute the magnitude of a matte's gradient."""
    along = [ndimage.gaussian_filter(alpha, GRADIENT_SIGMA, order=order) for order in ((0, 1), (1, 0))]
    return np.hypot(*along)


def errors(found: np.ndarray, alpha: np.ndarray) -> dict[str, float]:
    """Compute the errors of a matte of 0 to 1: SAD and gradient error in 1000 per megapixel, MSE in thousandths."""
    megapixels = alpha.size / 1e6
    difference = found - alpha
    return {
        "sad": float(np.abs(difference).sum() / 1e3 / megapixels),
        "mse": float((difference**2).mean() * 1e3),
        "gradient": float(((gradient(found) - gradient(alpha)) ** 2).sum() / 1e3 / megapixels),
    }


def measure_photo(
    photo: PIL.Image.Image, label_matte: np.ndarray, soft: np.ndarray, alpha: np.ndarray
) -> dict[str, dict[str, float]]:
    """
    Measure the errors of three mattes of a class, and the seconds of the refinement per megapixel: the class's pixels
    in the label map, the soft matte (uint8), and this one refined; the exact alpha is from 0 to 1.
    """
    start = time.perf_counter()
    refined = np.asarray(refine_matte(photo, PIL.Image.fromarray(soft)))
    seconds = (time.perf_counter() - start) / (alpha.size / 1e6)
    return {
        "label map": {**errors(label_matte.astype(np.float32), alpha), "seconds": 0.0},
        "soft": {**errors(soft.astype(np.float32) / 255, alpha), "seconds": 0.0},
        "refined": {**errors(refined.astype(np.float32) / 255, alpha), "seconds": seconds},
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder of scenes drawn with --alpha, split val.")],
    model: Annotated[str, typer.Option(help="Folder of the model.")] = "hub/massformer-photo",
    classes: Annotated[str, typer.Option(help="Classes to measure, comma-separated.")] = "human,vegetation",
    results_file: ResultsFile = RESULTS_FILE,
    output: Document = DOCUMENT,
):
    segmenter = Segmenter(model, "cpu", torch.float32, mattes=True)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for pair in track(find_splits(data)["validation"].pairs, "scenes", console=console):
        photo = read_photo(pair.image, str(pair.image))[0]
        segmentation = segmenter(photo)
        for name in classes.split(","):
            index = segmenter.labels.index(name)
            with PIL.Image.open(data / "alphas" / "val" / pair.image_id / f"{name}.png") as image:
                alpha = np.asarray(image).astype(np.float32) / 255
            if alpha.mean() < LEAST_SHARE or segmentation.mattes is None:
                continue
            measured = measure_photo(photo, segmentation.label_map == index, segmentation.mattes[index], alpha)
            for matte, values in measured.items():
                found.setdefault((name, matte), []).append(values)
    record = Record(results_file, output)
    source = describe_run(__file__, "cpu", 1)
    for (name, matte), each in found.items():
        values = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
        key = {"class": name, "matte": matte, "scenes": len(each)}
        record.add("cpu", "mattes", source, {"key": key, "status": "ok", "values": values})
    record.write_document()


if __name__ == "__main__":
    typer.run(main)
