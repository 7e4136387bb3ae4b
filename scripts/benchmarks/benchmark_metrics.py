"""
Time and memory of IoU, Boundary IoU and BF1 of one 4K pair: this package's counts beside the literal way (erosions of
each class's mask, distance transforms) and beside IoU alone, as `evaluate`'s mean_iou computes it. Each in a process
of its own, in turns, in one run. Adds a section to the document of `benchmark_model.py`. For Linux.
"""

import concurrent.futures
import json
import multiprocessing
import statistics
import time
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from benchmark_model import describe_run, write_whole
from benchmark_report import METRIC_TITLES, Results, add_measurement, render
from rich.console import Console
from rich.progress import track
from scipy import ndimage

from transformers_massformer.cli.options import parse_size
from transformers_massformer.data.layout import LABELS
from transformers_massformer.inference.memory import PeakMemory
from transformers_massformer.metrics import count_image, score
from transformers_massformer.metrics.counts import Counts, band_width
from transformers_massformer.scenes import render_scene


NUM_LABELS, TOLERANCE, RATIO = len(LABELS), 2.0, 0.001
console = Console(stderr=True, highlight=False, soft_wrap=True)


def make_pair(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """A scene's label map, and a prediction with ragged boundaries and wrong patches."""
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
    """This package's."""
    counts = Counts.stack([count_image(torch.from_numpy(prediction), torch.from_numpy(label), NUM_LABELS)])
    scores = score(counts)
    return {name: scores[f"per_category_{name}"] for name in ("iou", "boundary_iou", "bf1")}


def literal(prediction: np.ndarray, label: np.ndarray) -> dict[str, list[float]]:
    """Class by class: erosions of masks with OpenCV, as the release has them, and scipy's exact distances."""
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
    """IoU alone, from three histograms of floating-point values."""

    def histogram(values: np.ndarray) -> np.ndarray:
        return np.histogram(values, bins=NUM_LABELS, range=(0, NUM_LABELS - 1))[0]

    valid = label != 255
    prediction, label = prediction[valid], label[valid]
    intersection = histogram(prediction[prediction == label])
    union = histogram(prediction) + histogram(label) - intersection
    return {"iou": (intersection / union).tolist()}


METHODS = {"counts": by_counts, "literal": literal, "iou-histograms": iou_by_histograms}


def measure(method: str, path: Path) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Seconds and the process's peak memory, and what came out."""
    torch.set_num_threads(multiprocessing.cpu_count())
    with np.load(path) as pair:
        prediction, label = pair["prediction"], pair["label"]
    with np.errstate(invalid="ignore"):
        METHODS[method](prediction[:256, :256], label[:256, :256].copy())
    seconds = []
    with PeakMemory("cpu") as memory:
        while not seconds or (len(seconds) < 5 and sum(seconds) < 2):
            start = time.perf_counter()
            # Classes that are absent are NaN for all.
            with np.errstate(invalid="ignore"):
                scores = METHODS[method](prediction, label)
            seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds), "peak_bytes": memory.bytes or 0}, scores


def check_equal(found: dict[str, dict[str, list[float]]]):
    """Raises a RuntimeError if two methods do not give the same scores."""
    for method, scores in found.items():
        for name, values in scores.items():
            if not np.allclose(values, found["counts"][name], rtol=1e-9, equal_nan=True):
                raise RuntimeError(f"{method} gives another {name}: {values}, not {found['counts'][name]}.")


def main(
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "4096x3072",
    rounds: Annotated[int, typer.Option(help="How often each method has its turn.", min=1)] = 3,
    results_file: Annotated[Path, typer.Option(help="Figures of all benchmarks.")] = Path("docs/benchmarks.json"),
    output: Annotated[Path, typer.Option(help="The document.")] = Path("docs/benchmarks.md"),
):
    width, height = parse_size(size)
    pair_file = results_file.with_name(".metrics_pair.npz")
    prediction, label = make_pair(width, height)
    np.savez(pair_file, prediction=prediction, label=label)
    results: Results = json.loads(results_file.read_text()) if results_file.exists() else {}
    source = describe_run("cpu", rounds, None, 0, "benchmark_metrics.py")
    try:
        for _ in track(range(rounds), description="measuring", console=console):
            found = {}
            for method in METHODS:
                context = multiprocessing.get_context("spawn")
                with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                    values, found[method] = pool.submit(measure, method, pair_file).result()
                key = {"method": method, "size": [height, width]}
                add_measurement(results, "cpu", "metrics", source, {"key": key, "status": "ok", "values": values})
                console.print(f"{METRIC_TITLES[method]}: {values['seconds']:.3f} s")
            check_equal(found)
    finally:
        pair_file.unlink()
    write_whole(results_file, json.dumps(results, indent=1) + "\n")
    write_whole(output, render(results, results_file.name))


if __name__ == "__main__":
    typer.run(main)
