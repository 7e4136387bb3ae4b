"""
Compare ways to learn a new class from pseudo-labels, the settings of the paper's Table 3, on scenes with exact masks.

Bicycles are part of class "others". A stand-in for a labeling tool degrades their exact masks as such tools do: masks
of 256 pixels for a complete photograph, missed small objects, false detections. The demo model learns the class
from these masks and is scored against the exact ones. Each run is a separate process; finished runs are skipped. The
table is written to docs/benchmarks.md.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import PIL.Image
import torch
import typer
import yaml


sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from benchmark_record import DOCUMENT, RESULTS_FILE, Document, Record, ResultsFile, describe_run
from compare_decoders import PLAIN_TRAINING, check_work, run_all
from scipy import ndimage

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.data.label_images import write_label_image
from transformers_massformer.data.layout import find_splits
from transformers_massformer.data.pseudo_labels import PseudoLabelFiles
from transformers_massformer.data.reading import read_label
from transformers_massformer.images import read_photo
from transformers_massformer.inference.predictor import ModelPredictor, PredictionOptions
from transformers_massformer.labeling import Instance, encode_mask
from transformers_massformer.labeling.job import LabelJob, Photo
from transformers_massformer.labeling.review import tinted
from transformers_massformer.metrics import Counts, class_scores, count_image
from transformers_massformer.training import LabelSetting
from transformers_massformer.utils.files import written_whole
from transformers_massformer.utils.fingerprint import files_state
from transformers_massformer.utils.resuming import RecordWriter


NAME, CLASS_ID = "bicycle", len(MASS13K_LABELS)
MASSFORMER = [sys.executable, "-m", "transformers_massformer.cli"]
TRAIN_SEED, EVAL_SEED = 21, 22
# The stand-in: side of its masks for a complete photograph; share of the photograph below which it misses an object;
# one in how many photographs has a false detection, and its share of the photograph.
MASK_SIDE, MISSED_SHARE, FALSE_POSITIVES, FALSE_SHARE = 256, 1e-3, 8, 5e-3
# Sizes of pictures for the documents, in pixels.
MARGIN, PANEL_WIDTH, SHEET_WIDTH = 24, 640, 1200
SCORES = ("iou", "boundary_iou", "bf1")


def call(*arguments: object, environment: dict[str, str] | None = None):
    """Run a command of the package."""
    command = [*MASSFORMER, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")


def exact_mask(data: Path, split: str, image_id: str) -> np.ndarray:
    """Read the exact mask of a scene's bicycles."""
    with PIL.Image.open(data / "alphas" / split / image_id / f"{NAME}.png") as alpha:
        return np.asarray(alpha) >= 128


def write_exact_labels(data: Path):
    """Add the bicycles to the label maps of the held-out scenes, in pixels of "others"."""
    for path in sorted((data / "annotations" / "val").glob("*.png")):
        label_map = read_label(path, str(path))[0].numpy()
        hidden = exact_mask(data, "val", path.stem) & (label_map == 0)
        if hidden.any():
            label_map[hidden] = CLASS_ID
            write_label_image(label_map, path, palette=False)


def as_a_tool_sees_it(mask: np.ndarray) -> np.ndarray:
    """Degrade a mask as if a decoder had predicted it smoothly at a low resolution."""
    height, width = mask.shape
    scale = MASK_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = PIL.Image.fromarray(mask.astype(np.uint8) * 255)
    # Gaps between spokes become part of the wheel.
    closed = ndimage.binary_closing(np.asarray(picture.resize(size, PIL.Image.Resampling.BOX)) >= 64, iterations=2)
    small = ndimage.gaussian_filter(closed.astype(np.float32), 1)
    return np.asarray(PIL.Image.fromarray(small).resize((width, height), PIL.Image.Resampling.BILINEAR)) >= 0.5


def instance_of(mask: np.ndarray, score: float) -> Instance:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
    return Instance(CLASS_ID, box, score, score, encode_mask(mask))


def stand_in(exact: np.ndarray, rng: np.random.Generator) -> list[Instance]:
    """Simulate the instances that a labeling tool finds."""
    found = []
    # Parts of one bicycle and touching bicycles count as one object.
    parts, _ = ndimage.label(ndimage.binary_dilation(exact, iterations=4))
    for number, place in enumerate(ndimage.find_objects(parts), start=1):
        mask = np.zeros_like(exact)
        mask[place] = exact[place] & (parts[place] == number)
        if mask.mean() >= MISSED_SHARE:
            coarse = as_a_tool_sees_it(mask)
            if coarse.any():
                found.append(instance_of(coarse, 0.8))
    if rng.integers(FALSE_POSITIVES) == 0:
        height, width = exact.shape
        side = round((FALSE_SHARE * exact.size) ** 0.5)
        top, left = rng.integers(height // 2, height - side), rng.integers(0, width - side)
        mask = np.zeros_like(exact)
        mask[top : top + side, left : left + side] = True
        found.append(instance_of(mask, 0.4))
    return found


def write_pseudo_labels(data: Path, output: Path, split: str):
    """Write a folder of pseudo-labels like `massformer label` does."""
    folder = {"validation": "val"}.get(split, split)
    photos = [Photo(split, pair) for pair in find_splits(data)[split].pairs]
    labels = [*MASS13K_LABELS, NAME]
    job = LabelJob(output, photos, {CLASS_ID: NAME}, labels, relabel_all=False)
    job.begin({"tool": "stand-in"}, overwrite=False)
    done = job.done()
    with RecordWriter(output, 0) as writer:
        for index, photo in enumerate(photos):
            if photo.key in done:
                continue
            label_map = read_label(photo.pair.label, str(photo.pair.label))[0].numpy()
            label_map[label_map == CLASS_ID] = 0
            exact = exact_mask(data, folder, photo.pair.image_id)
            instances = stand_in(exact, np.random.default_rng([TRAIN_SEED, index]))
            job.write(photo, files_state(photo.files), label_map, instances, writer)
    job.finish({"tool": "stand-in"}, sheets=int(split == "train"))


def score_labels(data: Path, output: Path, alone: bool) -> dict[str, float]:
    """Score the pseudo-labels of the held-out scenes, as found by the tool or merged into the label maps."""
    counts = []
    pairs = find_splits(data)["validation"].pairs
    for pair, labelled in zip(pairs, PseudoLabelFiles(output).pairs(pairs, "validation", alone), strict=True):
        prediction, truth = (read_label(path, str(path))[0].long() for path in (labelled.label, pair.label))
        counts.append(count_image(prediction, truth, CLASS_ID + 1))
    scores = class_scores(Counts.stack(counts).sum())
    return {name: getattr(scores, name)[CLASS_ID].item() for name in SCORES}


def choose_scenes(data: Path, chosen: Path, least_share: float):
    """Create a folder of links to the held-out scenes and to the training scenes that show enough of the class."""
    for split in ("train", "val"):
        for photo in sorted((data / "images" / split).iterdir()):
            if split == "train" and exact_mask(data, split, photo.stem).mean() < least_share:
                continue
            for path in (photo, data / "annotations" / split / f"{photo.stem}.png"):
                link = chosen / path.relative_to(data)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(path.resolve())


def train(setting: str, seed: int, options: dict[str, Any], data: Path, work: Path) -> Path:
    """Train a model unless it is finished; return the file with its scores."""
    output = work / f"{setting}-{seed}"
    results = output / "eval_results.json"
    if not results.exists():
        recipe = {
            "model": options["model"],
            "add_class": [NAME],
            "pseudo_labels": str(work / "pseudo-train"),
            "label_setting": setting,
            "crop_size": options["crop_size"],
            "short_sides": options["short_sides"],
            "per_device_train_batch_size": options["batch_size"],
            "max_steps": options["steps"],
            "warmup_steps": options["steps"] // 16,
            "learning_rate": options["learning_rate"],
            "backbone_learning_rate_factor": 0.3,
            "train_backbone_norms": True,
            "fixed_norm_statistics": "all",
            "seed": seed,
            **PLAIN_TRAINING,
        }
        output.mkdir(parents=True, exist_ok=True)
        path = output / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        environment = {**os.environ, "OMP_NUM_THREADS": str(options["threads"])}
        call("train", "--data", data, "--recipe", path, "--output", output, environment=environment)
    return results


def prepare(data: Path, work: Path, options: dict[str, Any]):
    """Create the scenes, their exact labels, and the pseudo-labels of both splits."""
    for split, seed in (("train", TRAIN_SEED), ("val", EVAL_SEED)):
        count = ["--count", options[f"{split}_count"], "--size", options["size"], "--seed", seed, "--split", split]
        call("scenes", "--output", data, *count, "--alpha")
    write_exact_labels(data)
    write_pseudo_labels(data, work / "pseudo-train", "train")
    write_pseudo_labels(data, work / "pseudo-val", "validation")


def draw_example(data: Path, work: Path) -> PIL.Image.Image:
    """Draw the largest bicycles of the held-out scenes: photograph, exact mask, the tool's, the trained model's."""
    pairs = find_splits(data)["validation"].pairs
    pair = max(pairs, key=lambda each: exact_mask(data, "val", each.image_id).sum())
    exact = exact_mask(data, "val", pair.image_id)
    tool = read_label(PseudoLabelFiles(work / "pseudo-val").alone("validation", pair.image_id), "tool")[0].numpy()
    photo = read_photo(pair.image, str(pair.image))[0]
    predictor = ModelPredictor.load(work / f"{LabelSetting.reweighted}-0", "cpu", torch.float32, PredictionOptions())
    found = predictor(photo).numpy()
    rows, columns = np.flatnonzero(exact.any(axis=1)), np.flatnonzero(exact.any(axis=0))
    top, left = max(rows[0] - MARGIN, 0), max(columns[0] - MARGIN, 0)
    window = slice(top, rows[-1] + MARGIN), slice(left, min(columns[-1] + MARGIN, left + PANEL_WIDTH))
    pixels = np.asarray(photo)[window]
    by_tool, by_model = (tinted(pixels, mask[window], opacity=0.7) for mask in (tool == CLASS_ID, found == CLASS_ID))
    upper, lower = np.hstack([pixels, tinted(pixels, exact[window], opacity=0.7)]), np.hstack([by_tool, by_model])
    return PIL.Image.fromarray(np.vstack([upper, lower]))


def write_pictures(data: Path, work: Path, folder: Path):
    """Write an example and a review sheet for the documents."""
    with PIL.Image.open(work / "pseudo-train" / "review" / "001.jpg") as sheet:
        sheet.thumbnail((SHEET_WIDTH, SHEET_WIDTH))
        for name, picture in (("new_class", draw_example(data, work)), ("new_class_review", sheet)):
            with written_whole(folder / f"{name}.jpg") as partial:
                picture.save(partial, format="JPEG", quality=85)


def main(
    model: Annotated[str, typer.Option(help="Seven-class model to start from.")] = "hub/massformer-demo",
    work: Annotated[Path, typer.Option(help="Folder of scenes and runs.")] = Path("new-class"),
    train_count: Annotated[int, typer.Option(help="Scenes to train on.")] = 60,
    val_count: Annotated[int, typer.Option(help="Scenes held out.")] = 20,
    size: Annotated[str, typer.Option(help="Size of the scenes, WIDTHxHEIGHT.")] = "4096x3072",
    steps: Annotated[int, typer.Option(help="Optimizer steps of each run.")] = 150,
    crop_size: Annotated[int, typer.Option(help="Side of the training crops in pixels.")] = 512,
    short_sides: Annotated[str, typer.Option(help="Short sides that scenes are resized to.")] = "1024,1536,2048,3072",
    batch_size: Annotated[int, typer.Option(help="Crops per step.")] = 2,
    least_share: Annotated[float, typer.Option(help="Minimum share of the class in training scenes.")] = 0.0,
    learning_rate: Annotated[float, typer.Option(help="Initial learning rate.")] = 5e-4,
    seeds: Annotated[int, typer.Option(help="Runs of each setting.", min=1)] = 3,
    processes: Annotated[int, typer.Option(help="Runs at a time.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Threads per run.", min=1)] = 2,
    results_file: ResultsFile = RESULTS_FILE,
    output: Document = DOCUMENT,
):
    conditions: dict[str, Any] = {"train_count": train_count, "val_count": val_count, "size": size, "steps": steps}
    conditions |= {"crop_size": crop_size, "short_sides": [int(side) for side in short_sides.split(",")]}
    conditions |= {"batch_size": batch_size, "least_share": least_share, "learning_rate": learning_rate}
    conditions["threads"] = threads
    options = {"model": model, **conditions}
    check_work(work, options)
    data = work / "scenes"
    prepare(data, work, options)
    choose_scenes(data, work / "chosen", least_share)
    jobs = [(str(setting), seed) for seed in range(seeds) for setting in LabelSetting]
    files = run_all(lambda setting, seed: train(setting, seed, options, work / "chosen", work), jobs, processes)
    record = Record(results_file, output)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = describe_run(__file__, device, seeds)
    conditions["train_count"] = len(find_splits(work / "chosen")["train"].pairs)
    labels = {"tool": True, "merged": False}
    rows = [(name, score_labels(data, work / "pseudo-val", alone)) for name, alone in labels.items()]
    for (setting, _), file in zip(jobs, files, strict=True):
        found = json.loads(file.read_text(encoding="utf-8"))
        rows.append((setting, {name: found.get(f"eval_{name}_{NAME}", 0.0) for name in SCORES}))
    for setting, values in rows:
        measurement = {"key": {"setting": setting, **conditions}, "status": "ok", "values": values}
        record.add(device, "new_classes", source, measurement)
    record.write_document()
    write_pictures(data, work, output.parent / "images")


if __name__ == "__main__":
    typer.run(main)
