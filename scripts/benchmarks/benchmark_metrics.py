"""
Measure time and memory of IoU, Boundary IoU and BF1 of one 4K pair: this package's counts beside the literal method
(erosions of each class's mask, distance transforms) and beside IoU alone, as `evaluate`'s mean_iou computes it. Each
method runs in its own process, in turns. Adds a section to the document of `benchmark_model.py`. For Linux.
"""

import multiprocessing
import tempfile
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from benchmark_record import DOCUMENT, RESULTS_FILE, Document, Record, ResultsFile, apart, describe_run
from benchmark_report import METRIC_TITLES
from benchmark_worker import time_and_memory
from rich.progress import track
from scipy import ndimage

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.cli.console import error_console as console
from transformers_massformer.cli.options import parse_size
from transformers_massformer.metrics import count_image, score
from transformers_massformer.metrics.counts import Counts, band_width
from transformers_massformer.scenes import render_scene


NUM_LABELS, TOLERANCE, RATIO = len(MASS13K_LABELS), 2.0, 0.001


def make_pair(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene's label map, and a prediction with ragged boundaries and wrong patches."""
    label = np.asarray(render_scene(0, 0, (width, height)).label)
    rng = np.random.default_rng(0)
    blocks = (height // 16 + 1, width // 16 + 1)
    rows, columns = (
        (np.arange(length)[shape] + rng.integers(-2, 3, blocks).repeat(16, 0).repeat(16, 1)[:height, :width]).clip(
            0, length - 1
        )
        for length, shape in ((height, np.s_[:, None]), (width, np.s_[None, :]))
    )
    wrong = (rng.random(blocks) < 0.03).repeat(16, 0).repeat(16, 1)[:height, :width]
    prediction = np.where(wrong, (label[rows, columns] + 1) % NUM_LABELS, label[rows, columns])
    return prediction.astype(np.uint8), label.astype(np.uint8)


def by_counts(prediction: np.ndarray, label: np.ndarray) -> dict[str, list[float]]:
    """Compute the scores with this package."""
    counts = Counts.stack([count_image(torch.from_numpy(prediction), torch.from_numpy(label), NUM_LABELS)])
    scores = score(counts)
    return {name: scores[f"per_category_{name}"] for name in ("iou", "boundary_iou", "bf1")}


def literal(prediction: np.ndarray, label: np.ndarray) -> dict[str, list[float]]:
    """Compute the scores class by class: OpenCV erosions of masks, as in the release, and scipy's exact distances."""
    width, kernel = band_width(*label.shape, RATIO), np.ones((3, 3), np.uint8)

    def band(mask: np.ndarray, pixels: int) -> np.ndarray:
        padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        return mask & ~cv2.erode(padded, kernel, iterations=pixels)[1:-1, 1:-1].astype(bool)

    def matched(own: np.ndarray, other: np.ndarray) -> float:
        if not own.any() or not other.any():
            return 0.0
        return float((ndimage.distance_transform_edt(~other)[own] <= TOLERANCE).mean())

    scores: dict[str, list[float]] = {"iou": [], "boundary_iou": [], "bf1": []}
    for index in range(NUM_LABELS):
        predicted, true = prediction == index, label == index
        predicted_band, true_band = band(predicted, width), band(true, width)
        predicted_line, true_line = band(predicted, 1), band(true, 1)
        precision, recall = matched(predicted_line, true_line), matched(true_line, predicted_line)
        scores["iou"].append((predicted & true).sum() / (predicted | true).sum())
        scores["boundary_iou"].append((predicted_band & true_band).sum() / (predicted_band | true_band).sum())
        scores["bf1"].append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return scores


def iou_by_histograms(prediction: np.ndarray, label: np.ndarray) -> dict[str, list[float]]:
    """Compute IoU alone, from three histograms of floating-point values."""

    def histogram(values: np.ndarray) -> np.ndarray:
        return np.histogram(values, bins=NUM_LABELS, range=(0, NUM_LABELS - 1))[0]

    valid = label != 255
    prediction, label = prediction[valid], label[valid]
    intersection = histogram(prediction[prediction == label])
    union = histogram(prediction) + histogram(label) - intersection
    return {"iou": (intersection / union).tolist()}


METHODS = {"counts": by_counts, "literal": literal, "iou-histograms": iou_by_histograms}


def measure(method: str, path: Path) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Measure seconds and the process's peak memory of a method; returns them and its scores."""
    torch.set_num_threads(multiprocessing.cpu_count())
    with np.load(path) as pair:
        prediction, label = pair["prediction"], pair["label"]
    # Absent classes are NaN in every method.
    with np.errstate(invalid="ignore"):
        METHODS[method](prediction[:256, :256], label[:256, :256].copy())
        scores: dict[str, list[float]] = {}
        values = time_and_memory(lambda: scores.update(METHODS[method](prediction, label)), "cpu")
    return values, scores


def check_equal(found: dict[str, dict[str, list[float]]]):
    """Raise a RuntimeError if two methods give different scores."""
    for method, scores in found.items():
        for name, values in scores.items():
            if not np.allclose(values, found["counts"][name], rtol=1e-9, equal_nan=True):
                raise RuntimeError(f"{method} and counts differ in {name}: {values} and {found['counts'][name]}.")


def main(
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "4096x3072",
    rounds: Annotated[int, typer.Option(help="Measurements of each method.", min=1)] = 3,
    results_file: ResultsFile = RESULTS_FILE,
    output: Document = DOCUMENT,
):
    width, height = parse_size(size)
    record = Record(results_file, output)
    source = describe_run(__file__, "cpu", rounds)
    with tempfile.TemporaryDirectory() as folder:
        pair_file = Path(folder) / "pair.npz"
        prediction, label = make_pair(width, height)
        np.savez(pair_file, prediction=prediction, label=label)
        for _ in track(range(rounds), description="measuring", console=console):
            found = {method: apart(measure, method, pair_file) for method in METHODS}
            check_equal({method: scores for method, (_, scores) in found.items()})
            for method, (values, _) in found.items():
                key = {"method": method, "size": [height, width]}
                record.add("cpu", "metrics", source, {"key": key, "status": "ok", "values": values})
                console.print(f"{METRIC_TITLES[method]}: {values['seconds']:.3f} s")
    record.write_document()


if __name__ == "__main__":
    typer.run(main)
