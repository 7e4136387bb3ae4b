"""
Compare models trained under equal conditions: the same crops of the same scenes, the same steps and seeds, and label
maps read at the images' own size. By default decoders on one backbone, including the rows of the paper's Table 4;
`--formulations` runs the comparisons of the SeMask and MaskFormer papers: with and without semantic layers, masks and
pixels, semantic and general inference. Each run is a separate process; finished runs are skipped, so the command can
be interrupted. The table is written to docs/benchmarks.md.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml


sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from benchmark_model import check_choices
from benchmark_record import DOCUMENT, RESULTS_FILE, Document, Record, ResultsFile, apart, describe_run, write_whole
from decoders import DECODERS, FORMULATIONS, SEMANTIC_LAYERS, build_decoder
from rich.progress import track
from transformers import set_seed
from transformers.utils import logging

from transformers_massformer import MaSSFormerConfig, MaSSFormerImageProcessor
from transformers_massformer.cli.console import error_console as console
from transformers_massformer.data.headers import read_header
from transformers_massformer.data.layout import Pair, find_splits
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.data.transforms import TrainingTransform
from transformers_massformer.evaluation.run import Evaluator
from transformers_massformer.inference.memory import PeakMemory
from transformers_massformer.inference.predictor import ModelPredictor, PredictionOptions
from transformers_massformer.metrics import Counts, CountSettings, score
from transformers_massformer.training import MaSSFormerTrainer, MaSSFormerTrainingArguments, load_backbone_weights
from transformers_massformer.training.session import items, read_pairs


RECIPE = Path(__file__).parents[2] / "src/transformers_massformer/recipes/demo.yaml"
SCORES = ("mean_iou", "mean_boundary_iou", "mean_bf1", "mean_pq_st")
# Short sides that training images are resized to, as fractions of their own.
SCALES = (0.5, 0.75, 1.0, 1.25)
# Training without evaluation, checkpoints or logs.
PLAIN_TRAINING = {
    "dataloader_num_workers": 0,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": not torch.cuda.is_available(),
}


def run(decoder: str, seed: int, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train one model with the learning rates of the demo's recipe, and evaluate it, in this process."""
    torch.set_num_threads(options["threads"])
    logging.disable_progress_bar()
    recipe = yaml.safe_load(RECIPE.read_text())
    rates = ("learning_rate", "backbone_learning_rate_factor", "train_backbone_norms")
    args = MaSSFormerTrainingArguments(
        output_dir=str(folder),
        **{name: recipe[name] for name in rates},
        max_steps=options["steps"],
        warmup_steps=options["steps"] // 16,
        per_device_train_batch_size=options["batch_size"],
        seed=seed,
        logging_strategy="no",
        **PLAIN_TRAINING,
    )
    set_seed(seed)
    config = MaSSFormerConfig(**{**recipe["model_config"], "train_num_points": options["points"]})
    model = build_decoder(decoder, config)
    if decoder not in SEMANTIC_LAYERS:
        load_backbone_weights(model, options["backbone_weights"])
    splits = find_splits(options["data"])
    train_pairs, eval_pairs = (read_pairs(splits, name) for name in ("train", "validation"))
    short_side = min(read_header(train_pairs[0].image).upright_size)
    transform = TrainingTransform(
        crop_size=options["crop_size"], short_sides=tuple(int(short_side * scale) for scale in SCALES)
    )
    trainer = MaSSFormerTrainer(
        model=model,
        args=args,
        train_dataset=TrainingSet(items(train_pairs), transform, seed),
        eval_dataset=items(eval_pairs),
        processing_class=MaSSFormerImageProcessor(),
    )
    start = time.perf_counter()
    with PeakMemory(args.device) as memory:
        trainer.train()
    seconds = time.perf_counter() - start
    metrics = trainer.evaluate()
    general = general_scores(trainer, eval_pairs) if hasattr(model, "class_predictor") else {}
    return {
        **{name: metrics[f"eval_{name}"] for name in SCORES},
        **{f"general_{name}": general[name] for name in SCORES if name in general},
        "parameters": model.num_parameters(),
        "seconds": seconds,
        "peak_bytes": memory.bytes,
    }


def general_scores(trainer: MaSSFormerTrainer, pairs: list[Pair]) -> dict[str, Any]:
    """Score general inference on the outputs of the same queries."""
    predictor = ModelPredictor(trainer.model, trainer.processing_class, PredictionOptions(inference="general"))
    num_labels = len(trainer.labels)
    evaluator = Evaluator(predictor, torch.arange(num_labels), num_labels, CountSettings())
    return score(Counts.stack([record.counts for record in evaluator.records(pairs)]))


def file_name(decoder: str) -> str:
    """Return the unique file name of a decoder's runs."""
    return re.sub(r"\W+", "-", decoder.lower().replace("+", " plus ")).strip("-")


def run_apart(decoder: str, seed: int, options: dict[str, Any], work: Path) -> Path:
    """Train and evaluate a model in a separate process unless it is finished; return the file with its record."""
    name = file_name(decoder)
    record = work / f"{name}-{seed}.json"
    if not record.exists():
        write_whole(record, json.dumps(apart(run, decoder, seed, options, work / name)) + "\n")
    return record


def run_all(function: Callable[[str, int], Path], jobs: Sequence[tuple[str, int]], processes: int) -> list[Path]:
    """Call a function for all jobs, several at a time, and return its results in their order; stop at an error."""
    with ThreadPoolExecutor(processes) as pool:
        results = pool.map(lambda job: function(*job), jobs)
        return list(track(results, "training", len(jobs), console=console))


def check_work(work: Path, options: dict[str, Any]):
    """Record the options of the runs in a folder; raises a ValueError if it contains runs with other options."""
    path = work / "options.json"
    if path.exists() and json.loads(path.read_text()) != options:
        raise ValueError(f"{work} contains runs with other options. Choose another --work.")
    work.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(options, indent=1) + "\n")


def main(
    data: Annotated[Path, typer.Option(help="Scenes in the layout of MaSS13K, splits train and val.")],
    backbone_weights: Annotated[str, typer.Option(help="ImageNet weights of EfficientNet-Lite0.")],
    work: Annotated[Path, typer.Option(help="Folder of runs, kept until all are finished.")] = Path("compare"),
    steps: Annotated[int, typer.Option(help="Optimizer steps of each run.")] = 150,
    crop_size: Annotated[int, typer.Option(help="Side of the training crops in pixels.")] = 256,
    batch_size: Annotated[int, typer.Option(help="Crops per step.")] = 4,
    points: Annotated[int, typer.Option(help="Points per mask in the loss.")] = 2048,
    seeds: Annotated[int, typer.Option(help="Runs of each decoder.", min=1)] = 3,
    formulations: Annotated[
        bool, typer.Option("--formulations", help="Compare semantic layers, masks, pixels.")
    ] = False,
    decoders: Annotated[list[str] | None, typer.Option("--decoder", help="Decoder to train; repeatable.")] = None,
    processes: Annotated[int, typer.Option(help="Runs at a time.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Threads per run.", min=1)] = 2,
    results_file: ResultsFile = RESULTS_FILE,
    output: Document = DOCUMENT,
):
    known, section = (FORMULATIONS, "formulations") if formulations else (DECODERS, "decoders")
    chosen = check_choices(decoders or list(known), known, "--decoder")
    conditions: dict[str, Any] = {"steps": steps, "crop_size": crop_size, "batch_size": batch_size, "points": points}
    conditions["threads"] = threads
    options = {"data": str(data), "backbone_weights": backbone_weights, **conditions}
    check_work(work, options)
    # Inherited by the processes of the runs.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    jobs = [(decoder, seed) for seed in range(seeds) for decoder in chosen]
    files = run_all(lambda decoder, seed: run_apart(decoder, seed, options, work), jobs, processes)
    record = Record(results_file, output)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = describe_run(__file__, device, seeds)
    splits = find_splits(data)
    width, height = read_header(splits["train"].pairs[0].image).upright_size
    conditions["size"] = [height, width]
    conditions |= {name: len(splits[name].pairs) for name in ("train", "validation")}
    for (decoder, _), file in zip(jobs, files, strict=True):
        key, values = {"decoder": decoder, **conditions}, json.loads(file.read_text())
        record.add(device, section, source, {"key": key, "status": "ok", "values": values})
    record.write_document()


if __name__ == "__main__":
    typer.run(main)
