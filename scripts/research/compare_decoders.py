"""
Compare models trained under equal conditions: the same crops of the same images, the same steps (or, with
`--equal-time`, the same time) and seeds, and label maps read at the images' own size. By default decoders on one
backbone, including the rows of the paper's Table 4; `--formulations` runs the comparisons of the SeMask and MaskFormer
papers: with and without semantic layers, masks and pixels, semantic and general inference. The crops of a seed are
made once and read by all of its runs. Each run is a separate process; finished runs are skipped, so the command can be
interrupted. The table of the finished runs is written to docs/benchmarks.md.
"""

import json
import math
import multiprocessing
import os
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import yaml


sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from benchmark_model import check_choices
from benchmark_record import DOCUMENT, RESULTS_FILE, Document, Record, ResultsFile, describe_run, write_whole
from decoders import DECODERS, FORMULATIONS, LEARNING_RATES, SEMANTIC_LAYERS, build_decoder
from rich.progress import track
from torch.utils.data import Dataset
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
from transformers_massformer.training.collation import collate_for
from transformers_massformer.training.session import evenly, items, read_pairs


RECIPE = Path(__file__).parents[2] / "src/transformers_massformer/recipes/demo.yaml"
SCORES = ("mean_iou", "mean_boundary_iou", "mean_bf1", "overall_accuracy", "mean_pq_st")
# Its steps take the time that `--equal-time` gives to other decoders.
PEER = "Mask2Former"
# Steps that are timed, after those that warm up.
TIMED_STEPS, WARM_UP_STEPS = 10, 3
# Samples made by one call of a worker.
CHUNK = 64
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


Job = tuple[str, str, int, int]


class CachedSamples(Dataset):
    """Samples in the order of training, from the files of [`cache_samples`]."""

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        # Mapped for each sample, so that what was read does not count as memory of the process.
        pixels, labels = (np.load(self.folder / f"{name}.npy", mmap_mode="r")[index] for name in ("pixels", "labels"))
        return {
            "pixel_values": torch.from_numpy(pixels.astype(np.float32)),
            "labels": torch.from_numpy(labels.astype(np.int64)),
        }


def pairs_of(folders: Sequence[str], split: str) -> list[Pair]:
    """Return the pairs of a split of all folders."""
    return [pair for folder in folders for pair in read_pairs(find_splits(folder), split)]


def write_samples(pairs: list[Pair], options: dict[str, Any], seed: int, folder: Path, first: int, last: int):
    """Write samples, counted in the order of training, to the files of [`cache_samples`]."""
    torch.set_num_threads(1)
    samples = TrainingSet(items(pairs), TrainingTransform(options["crop_size"], scales=tuple(options["scales"])), seed)
    pixels, labels = (np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("pixels", "labels"))
    # As for EpochSampler, an incomplete step at the end of an epoch is dropped.
    per_epoch = len(samples) // options["batch_size"] * options["batch_size"]
    for index in range(first, last):
        samples.set_epoch(index // per_epoch)
        sample = samples[samples.order()[index % per_epoch]]
        pixels[index], labels[index] = sample["pixel_values"].numpy(), sample["labels"].numpy()


def cache_samples(domain: str, seed: int, options: dict[str, Any], folder: Path, count: int, processes: int):
    """Make the samples of all runs of a domain and seed, in several processes, unless there are enough of them."""
    if folder.exists() and len(np.load(folder / "labels.npy", mmap_mode="r")) >= count:
        return
    pairs = pairs_of(options["data"][domain], "train")
    if len(pairs) < options["batch_size"]:
        raise ValueError(f"{domain} has {len(pairs)} training images, a step takes {options['batch_size']}: add some.")
    partial, side = folder.with_suffix(".partial"), options["crop_size"]
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, kind, shape in (
        ("pixels", np.float16, (count, 3, side, side)),
        ("labels", np.uint8, (count, side, side)),
    ):
        np.lib.format.open_memmap(partial / f"{name}.npy", "w+", kind, shape)
    context = multiprocessing.get_context("spawn")
    workers: Executor = ProcessPoolExecutor(processes, context) if processes > 1 else ThreadPoolExecutor(1)
    with workers as pool:
        tasks = [
            pool.submit(write_samples, pairs, options, seed, partial, first, min(first + CHUNK, count))
            for first in range(0, count, CHUNK)
        ]
        for task in tasks:
            task.result()
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def recipe_config(options: dict[str, Any]) -> MaSSFormerConfig:
    """Return the demo's configuration with the points of the options."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    return MaSSFormerConfig(**{**recipe["model_config"], "train_num_points": options["points"]})


def training_arguments(decoder: str, seed: int, steps: int, options: dict[str, Any], folder: Path) -> Any:
    """Return the demo's learning rates, or those of the decoder's authors, with the options."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    rates = {name: recipe[name] for name in ("learning_rate", "backbone_learning_rate_factor", "train_backbone_norms")}
    if decoder in LEARNING_RATES:
        rates["learning_rate"] = LEARNING_RATES[decoder]
    return MaSSFormerTrainingArguments(
        output_dir=str(folder),
        **rates,
        max_steps=steps,
        warmup_steps=steps // 16,
        per_device_train_batch_size=options["batch_size"],
        seed=seed,
        logging_strategy="no",
        train_sampling_strategy="sequential",
        **PLAIN_TRAINING,
    )


def run(job: Job, options: dict[str, Any], samples: Path, record: Path):
    """Train one model on cached samples, evaluate it, and write its scores and costs, in this process."""
    decoder, domain, seed, steps = job
    torch.set_num_threads(options["threads"])
    logging.disable_progress_bar()
    set_seed(seed)
    model = build_decoder(decoder, recipe_config(options))
    if decoder not in SEMANTIC_LAYERS:
        load_backbone_weights(model, options["backbone_weights"])
    eval_pairs = evenly(pairs_of(options["data"][domain], "validation"), options["eval_limit"])
    args = training_arguments(decoder, seed, steps, options, record.with_suffix(""))
    trainer = MaSSFormerTrainer(
        model=model,
        args=args,
        train_dataset=CachedSamples(samples, steps * options["batch_size"]),
        eval_dataset=items(eval_pairs),
        processing_class=MaSSFormerImageProcessor(),
    )
    start = time.perf_counter()
    with PeakMemory(args.device) as memory:
        trainer.train()
    seconds = time.perf_counter() - start
    metrics = trainer.evaluate()
    is_compared = decoder in FORMULATIONS and hasattr(model, "class_predictor")
    general = general_scores(trainer, eval_pairs) if is_compared else {}
    values = {
        **{name: metrics[f"eval_{name}"] for name in SCORES},
        **{f"general_{name}": general[name] for name in SCORES if name in general},
        "parameters": model.num_parameters(),
        "learning_rate": args.learning_rate,
        "seconds": seconds,
        "peak_bytes": memory.bytes,
    }
    write_whole(record, json.dumps(values) + "\n")


def time_steps(decoders: Sequence[str], options: dict[str, Any], samples: Path) -> dict[str, float]:
    """Time a training step of each decoder in turn, without loading, and return the median seconds."""
    torch.set_num_threads(options["threads"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = CachedSamples(samples, options["batch_size"])
    contestants, seconds = [], {decoder: [] for decoder in decoders}
    for decoder in decoders:
        set_seed(0)
        model: Any = build_decoder(decoder, recipe_config(options)).train().to(device)
        batch = collate_for(model)([dataset[index] for index in range(len(dataset))])
        batch = {
            name: value.to(device) if hasattr(value, "to") else [x.to(device) for x in value]
            for name, value in batch.items()
        }
        contestants.append((decoder, model, torch.optim.AdamW(model.parameters(), lr=1e-4), batch))
    for _ in range(WARM_UP_STEPS + TIMED_STEPS):
        for decoder, model, optimizer, batch in contestants:
            start = time.perf_counter()
            model(**batch).loss.mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            optimizer.step()
            optimizer.zero_grad()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[decoder].append(time.perf_counter() - start)
    return {decoder: statistics.median(values[WARM_UP_STEPS:]) for decoder, values in seconds.items()}


def general_scores(trainer: MaSSFormerTrainer, pairs: list[Pair]) -> dict[str, Any]:
    """Score general inference on the outputs of the same queries."""
    predictor = ModelPredictor(trainer.model, trainer.processing_class, PredictionOptions(inference="general"))
    num_labels = len(trainer.labels)
    evaluator = Evaluator(predictor, torch.arange(num_labels), num_labels, CountSettings())
    return score(Counts.stack([record.counts for record in evaluator.records(pairs)]))


def file_name(decoder: str) -> str:
    """Return the unique file name of a decoder's runs."""
    return re.sub(r"\W+", "-", decoder.lower().replace("+", " plus ")).strip("-")


def run_apart(job: Job, options: dict[str, Any], samples: Path, work: Path, deadline: float) -> Path | None:
    """
    Train and evaluate a model in a separate process unless it is finished. Returns the file with its record, or `None`
    if it failed or was stopped at the deadline (of `time.monotonic`).
    """
    decoder, domain, seed, steps = job
    record = work / f"{file_name(domain)}-{file_name(decoder)}-{steps}-{seed}.json"
    if not record.exists() and time.monotonic() < deadline:
        process = multiprocessing.get_context("spawn").Process(target=run, args=(job, options, samples, record))
        process.start()
        process.join(None if deadline == math.inf else max(0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
        process.join()
    found = json.loads(record.read_text(encoding="utf-8")) if record.exists() else None
    scores = "not finished" if found is None else ", ".join(f"{name} {found[name]:.4g}" for name in SCORES[:3])
    console.print(f"{decoder}, {domain}, seed {seed}, {steps} steps: {scores}", highlight=False)
    return record if found else None


def run_all(function: Callable[..., Any], jobs: Sequence[tuple], processes: int) -> list[Any]:
    """Call a function for all jobs, several at a time, and return its results in their order; stop at an error."""
    with ThreadPoolExecutor(processes) as pool:
        results = pool.map(lambda job: function(*job), jobs)
        return list(track(results, "training", len(jobs), console=console))


def check_work(work: Path, options: dict[str, Any]):
    """Record the options of the runs in a folder; raises a ValueError if it contains runs with other options."""
    path = work / "options.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != options:
        raise ValueError(f"{work} contains runs with other options. Choose another folder.")
    work.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(options, indent=1) + "\n")


def by_domain(data: Sequence[str]) -> dict[str, list[str]]:
    """Group arguments `DOMAIN=FOLDER` by domain; a folder alone belongs to "scenes"."""
    folders: dict[str, list[str]] = {}
    for argument in data:
        domain, _, folder = argument.rpartition("=")
        folders.setdefault(domain or "scenes", []).append(folder)
    return folders


def list_jobs(
    chosen: Sequence[str], domains: Sequence[str], seeds: int, steps: int, equal_time: dict[str, int]
) -> Iterator[Job]:
    """List the runs, the most important first: by seed, then by decoder, at equal steps before equal time."""
    for seed in range(seeds):
        for decoder in chosen:
            for count in dict.fromkeys((steps, equal_time.get(decoder, steps))):
                for domain in domains:
                    yield decoder, domain, seed, count


def describe_data(folders: Sequence[str], eval_limit: int | None) -> dict[str, Any]:
    """Return the numbers of images of a domain, and their size, `None` if it differs."""
    train, validation = (pairs_of(folders, split) for split in ("train", "validation"))
    sizes = {read_header(pair.image).upright_size[::-1] for pair in train}
    size = list(sizes.pop()) if len(sizes) == 1 else None
    return {"size": size, "train": len(train), "validation": len(evenly(validation, eval_limit))}


def main(
    data: Annotated[
        list[str],
        typer.Option(help="DOMAIN=FOLDER in the layout of MaSS13K; repeatable, folders of a domain are mixed."),
    ],
    backbone_weights: Annotated[str, typer.Option(help="ImageNet weights of EfficientNet-Lite0.")],
    work: Annotated[Path, typer.Option(help="Folder of runs, kept until all are finished.")] = Path("compare"),
    samples: Annotated[Path | None, typer.Option(help="Folder of training samples, in --work by default.")] = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps of each run.")] = 150,
    crop_size: Annotated[int, typer.Option(help="Side of the training crops in pixels.")] = 256,
    scales: Annotated[
        tuple[float, float], typer.Option(help="Factors of their own size between which images are resized.")
    ] = (0.5, 1.25),
    batch_size: Annotated[int, typer.Option(help="Crops per step.")] = 4,
    points: Annotated[int, typer.Option(help="Points per mask in the loss.")] = 2048,
    seeds: Annotated[int, typer.Option(help="Runs of each decoder.", min=1)] = 3,
    formulations: Annotated[
        bool, typer.Option("--formulations", help="Compare semantic layers, masks, pixels.")
    ] = False,
    decoders: Annotated[list[str] | None, typer.Option("--decoder", help="Decoder to train; repeatable.")] = None,
    equal_time: Annotated[
        list[str] | None, typer.Option(help=f"Decoder to train also for as long as {PEER}; repeatable.")
    ] = None,
    eval_limit: Annotated[int | None, typer.Option(help="Evaluate on this many images.", min=1)] = None,
    processes: Annotated[int, typer.Option(help="Runs at a time.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Threads per run.", min=1)] = 2,
    deadline: Annotated[float, typer.Option(help="Seconds after which runs are stopped and left out.")] = math.inf,
    results_file: ResultsFile = RESULTS_FILE,
    output: Document = DOCUMENT,
):
    end = time.monotonic() + deadline
    known, section = (FORMULATIONS, "formulations") if formulations else (DECODERS, "decoders")
    chosen = check_choices(decoders or list(known), known, "--decoder")
    if equal_time:
        check_choices(equal_time, chosen, "--equal-time")
    domains = by_domain(data)
    conditions: dict[str, Any] = {"crop_size": crop_size, "batch_size": batch_size, "points": points}
    conditions |= {"threads": threads, "scales": list(scales)}
    options = {"data": domains, "backbone_weights": backbone_weights, "eval_limit": eval_limit, **conditions}
    check_work(work, {**options, "steps": steps})
    samples = samples or work / "samples"
    check_work(samples, {name: options[name] for name in ("data", "crop_size", "scales", "batch_size")})
    # Inherited by the processes of the runs.
    os.environ["OMP_NUM_THREADS"] = str(threads)

    def make_samples(domain: str, seed: int, longest: int) -> None:
        folder = samples / f"{file_name(domain)}-{seed}"
        cache_samples(domain, seed, options, folder, longest * batch_size, processes)

    first = next(iter(domains))
    make_samples(first, 0, steps)
    timed = list(dict.fromkeys([*chosen, PEER] if equal_time else chosen))
    times_file = work / "step_seconds.json"
    times = json.loads(times_file.read_text(encoding="utf-8")) if times_file.exists() else {}
    if not times.keys() >= set(timed):
        times = time_steps(timed, options, samples / f"{file_name(first)}-0")
        write_whole(times_file, json.dumps(times, indent=1) + "\n")
    as_long = {name: max(1, round(steps * times[PEER] / times[name])) for name in equal_time or ()}
    longest = max([steps, *as_long.values()])
    for seed in range(seeds):
        for domain in domains:
            make_samples(domain, seed, longest)
    jobs = list(list_jobs(chosen, list(domains), seeds, steps, as_long))

    def train(*job: Any) -> Path | None:
        return run_apart(job, options, samples / f"{file_name(job[1])}-{job[2]}", work, end)

    files = run_all(train, jobs, processes)
    record = Record(results_file, output)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = describe_run(__file__, device, seeds)
    described = {domain: describe_data(folders, eval_limit) for domain, folders in domains.items()}
    for (decoder, domain, _, count), file in zip(jobs, files, strict=True):
        if file is not None:
            key = {"decoder": decoder, "domain": domain, "steps": count, **conditions, **described[domain]}
            values = {**json.loads(file.read_text(encoding="utf-8")), "step_seconds": times[decoder]}
            record.add(device, section, source, {"key": key, "status": "ok", "values": values})
    record.write_document()
    if unfinished := files.count(None):
        console.print(f"{unfinished} of {len(jobs)} runs did not finish and are not in the table.")


if __name__ == "__main__":
    typer.run(main)
