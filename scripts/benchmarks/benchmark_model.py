"""
Measure time and memory of MaSSFormer beside transformers' Mask2Former-R50, MaskFormer-R50 and SegFormer-B2, all with
random weights: inference at several sizes, a training step, single deformable convolutions, cost against the number of
pixels, and the share of the machine's peak rates. Writes a document and the figures behind it.

The figures of a device (CPU, CUDA) replace that device's earlier ones, section by section; the rest stay. An
interrupted run keeps its measurements. For Linux.
"""

import contextlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from benchmark_record import DOCUMENT, Document, Record, describe_run
from benchmark_report import key_text, seconds_text
from benchmark_worker import DEFORMABLE_LAYERS, FORWARD, FORWARD_BACKWARD, PEERS, Contestant, failure
from rich.progress import track

from transformers_massformer.cli.console import error_console as console
from transformers_massformer.conversion import VARIANTS
from transformers_massformer.inference.loading import default_device
from transformers_massformer.inference.memory import available_memory
from transformers_massformer.utils.text import format_bytes


WORKER = Path(__file__).parent / "benchmark_worker.py"
# Engines of deformable convolutions per device; the first is the automatic choice.
ENGINES = {"cpu": ["banded", "torchvision"], "cuda": ["triton", "torchvision", "banded"]}
DTYPES = {"cpu": ["float32"], "cuda": ["float32", "bfloat16", "float16"]}
SIZES = "1024x1024,2048x2048,3072x4096,4096x4096"
# `--large-models` applies to images with more pixels.
LARGE_PIXELS = 2048 * 2048


@dataclass(frozen=True)
class Job:
    """Keys of a section that one process measures."""

    section: str
    keys: list[dict[str, Any]]


def split(text: str) -> list[str]:
    """Split a comma-separated list."""
    return [item.strip() for item in text.split(",") if item.strip()]


def parse_size(text: str) -> list[int]:
    """Parse "3072x4096" as [3072, 4096], height first."""
    with contextlib.suppress(ValueError):
        height, width = (int(side) for side in text.split("x"))
        if height > 0 and width > 0 and height % 32 == width % 32 == 0:
            return [height, width]
    raise typer.BadParameter(f"Expected HEIGHTxWIDTH, both multiples of 32, such as 3072x4096; got {text}.")


def check_choices(names: list[str], choices: Iterable[str], what: str) -> list[str]:
    """Return the names, or raise `typer.BadParameter` if there are none or some are unknown."""
    unknown = [name for name in names if name not in choices]
    if unknown or not names:
        raise typer.BadParameter(f"{what}: choose from {', '.join(choices)}; got {', '.join(names) or 'none'}.")
    return names


def inference_contestants(
    variants: list[str], other_engines: list[str], dtypes: list[str], peers: bool, compile: bool
) -> list[Contestant]:
    """
    List the contestants of the inference section. First dtype: the peers, every variant fused, and the first variant
    also unfused and with each engine that is not the automatic choice. Other dtypes: every variant fused. With
    `compile`, the peers and the fused variants run compiled, too.
    """
    contestants = [Contestant(peer, dtypes[0]) for peer in PEERS if peers]
    contestants += [Contestant(f"massformer-{variant}", dtype, fuse=True) for dtype in dtypes for variant in variants]
    compiled = [replace(contestant, compile=True) for contestant in contestants if compile]
    first = Contestant(f"massformer-{variants[0]}", dtypes[0])
    engines = [replace(first, fuse=True, engine=engine) for engine in other_engines]
    return [*contestants, first, *engines, *compiled]


def training_contestants(
    variants: list[str], other_engines: list[str], dtypes: list[str], peers: bool
) -> list[Contestant]:
    """List the contestants of training, per dtype: peers, variants, and the first variant with each other engine."""
    models = [*(peer for peer in PEERS if peers), *(f"massformer-{variant}" for variant in variants)]
    contestants = []
    for dtype in dtypes:
        contestants += [Contestant(model, dtype) for model in models]
        contestants += [Contestant(f"massformer-{variants[0]}", dtype, engine=engine) for engine in other_engines]
    return contestants


def contestant_jobs(section: str, contestants: list[Contestant], conditions: dict[str, Any]) -> list[Job]:
    """Create a job per contestant."""
    return [Job(section, [{"contestant": asdict(contestant), **conditions}]) for contestant in contestants]


def deformable_jobs(engines: list[str], dtypes: list[str], size: list[int]) -> list[Job]:
    """Create jobs per engine and dtype: one for the single layers, one for a complete forward pass."""
    candidates = [*engines, *(["deformops"] if importlib.util.find_spec("deformops") else [])]
    jobs = []
    for dtype in dtypes:
        for engine in candidates:
            conditions = {"engine": engine, "dtype": dtype, "size": size}
            steps = itertools.product(DEFORMABLE_LAYERS, (FORWARD, FORWARD_BACKWARD))
            jobs.append(Job("deformable", [{"layer": layer, "step": step, **conditions} for layer, step in steps]))
        for engine in engines:
            jobs.append(Job("shares", [{"engine": engine, "dtype": dtype, "size": size}]))
    return jobs


def reference_jobs(contestants: list[Contestant], sizes: list[list[int]]) -> list[Job]:
    """Create the jobs that run once: operations of each model, and the machine's peak rates."""
    models = dict.fromkeys(contestant.model for contestant in contestants)
    jobs = [Job("flops", [{"model": model, "size": size} for size in sizes]) for model in models]
    ceilings = dict.fromkeys([*(contestant.dtype for contestant in contestants), "bfloat16", "copy"])
    return [*jobs, Job("ceilings", [{"ceiling": ceiling} for ceiling in ceilings])]


def run_worker(job: Job, device: str, memory_limit: int | None, time_limit: float) -> list[dict[str, Any]]:
    """Measure in a separate process; if it ends early, its remaining keys get the reason."""
    request = {"section": job.section, "keys": job.keys, "device": device, "memory_limit": memory_limit}
    command = [sys.executable, str(WORKER), json.dumps(request)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=time_limit, check=False
        )
        printed, ended = result.stdout, failure(result.stderr)
        if result.returncode == -9:
            ended = {"status": "does not fit"}
    except subprocess.TimeoutExpired as error:
        printed, ended = (error.stdout or b"").decode(), {"status": "timed out"}
    measurements = [json.loads(line) for line in printed.splitlines() if line.startswith('{"key"')]
    return measurements + [{"key": key, **ended} for key in job.keys[len(measurements) :]]


def describe(measurement: dict[str, Any]) -> str:
    """Describe the outcome of a measurement for the progress output."""
    if measurement["status"] != "ok":
        return f"{measurement['status']} {measurement.get('detail', '')}".rstrip()
    texts = {"seconds": seconds_text, "peak_bytes": format_bytes, "deformable_seconds": seconds_text}
    return ", ".join(texts.get(name, "{:.4g}".format)(number) for name, number in measurement["values"].items())


@dataclass
class Run:
    """Jobs of one device, measured in rounds and recorded immediately."""

    device: str
    source: dict[str, Any]
    record: Record
    memory_limit: int | None
    time_limit: float
    long: float

    def measure(self, job: Job) -> bool:
        """Measure a job and return whether to repeat it: it gave figures and took at most `long` seconds."""
        measurements = run_worker(job, self.device, self.memory_limit, self.time_limit)
        for measurement in measurements:
            self.record.add(self.device, job.section, self.source, measurement)
            console.print(f"{job.section}, {key_text(measurement['key'])}: {describe(measurement)}", markup=False)
        seconds = [x["values"].get("seconds", 0) for x in measurements if x["status"] == "ok"]
        return bool(seconds) and max(seconds) <= self.long

    def measure_rounds(self, jobs: list[Job], rounds: int):
        """Measure all jobs in every round, except those that failed or took too long before."""
        for index in range(rounds):
            console.print(f"round {index + 1} of {rounds}: {len(jobs)} processes")
            jobs = [job for job in track(jobs, description="measuring", console=console) if self.measure(job)]


def main(
    sizes: Annotated[str, typer.Option(help="Image sizes, HEIGHTxWIDTH, ...")] = SIZES,
    variants: Annotated[str, typer.Option(help="MaSSFormer variants; the first in more ways.")] = ",".join(VARIANTS),
    engines: Annotated[str, typer.Option(help="Engines of deformable convolutions; by default all.")] = "",
    dtypes: Annotated[str, typer.Option(help="By default float32; on CUDA also bfloat16 and float16.")] = "",
    peers: Annotated[bool, typer.Option(help="Measure the other models.")] = True,
    compile: Annotated[bool, typer.Option(help="Also measure compiled models.")] = False,
    inference: Annotated[bool, typer.Option(help="Measure inference.")] = True,
    training: Annotated[bool, typer.Option(help="Measure the training step.")] = True,
    deformable: Annotated[bool, typer.Option(help="Measure single deformable convolutions.")] = True,
    crop_size: Annotated[str, typer.Option(help="Size of training crops, HEIGHTxWIDTH.")] = "1024x1024",
    batch_size: Annotated[int, typer.Option(help="Batch size of training; MaSSFormer needs at least two.", min=2)] = 2,
    deformable_size: Annotated[str, typer.Option(help="Image size of single convolutions.")] = "2048x2048",
    large_models: Annotated[str, typer.Option(help="Models to run above 2048x2048, e.g. r50; by default all.")] = "",
    rounds: Annotated[int, typer.Option(help="Measurements of each figure.", min=1)] = 3,
    long: Annotated[float, typer.Option(help="Measure what takes longer in one round only, in seconds.")] = 600,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default the fastest.")] = None,
    memory_limit: Annotated[
        float | None, typer.Option(help="GiB per CPU process; by default 90% of free RAM.")
    ] = None,
    time_limit: Annotated[float, typer.Option(help="Time limit of a process in seconds.")] = 1800,
    output: Document = DOCUMENT,
    results: Annotated[Path | None, typer.Option(help="JSON file; by default beside the document.")] = None,
    render_only: Annotated[bool, typer.Option("--render-only", help="Render the document without measuring.")] = False,
):
    record = Record(results or output.with_suffix(".json"), output)
    if render_only:
        record.write_document()
        return

    device = device or default_device()
    kind = torch.device(device).type
    variant_names = check_choices(split(variants), VARIANTS, "--variants")
    models = {name: f"massformer-{name}" for name in variant_names} | {name: name for name in PEERS}
    large_names = check_choices(split(large_models or ",".join(models)), models, "--large-models")
    engine_names = check_choices(split(engines or ",".join(ENGINES[kind])), ENGINES[kind], "--engines")
    dtype_names = check_choices(split(dtypes or ",".join(DTYPES[kind])), DTYPES["cuda"], "--dtypes")
    other_engines = [engine for engine in engine_names if engine != ENGINES[kind][0]]

    once: list[Job] = []
    jobs: list[Job] = []
    if inference:
        contestants = inference_contestants(variant_names, other_engines, dtype_names, peers, compile)
        image_sizes = [parse_size(size) for size in split(sizes)]
        once = reference_jobs(contestants, image_sizes)
        for height, width in image_sizes:
            large = height * width > LARGE_PIXELS
            taking_part = [c for c in contestants if not large or c.model in [models[name] for name in large_names]]
            jobs += contestant_jobs("inference", taking_part, {"size": [height, width]})
    if training:
        contestants = training_contestants(variant_names, other_engines, dtype_names, peers)
        conditions = {"size": parse_size(crop_size), "batch_size": batch_size}
        jobs += contestant_jobs("training", contestants, conditions)
    if deformable:
        jobs += deformable_jobs(engine_names, dtype_names, parse_size(deformable_size))

    limit = None
    if kind == "cpu":
        available = available_memory(torch.device(device))
        limit = int(0.9 * available if memory_limit is None else memory_limit * 2**30)
    source = describe_run(__file__, device, rounds, limit, time_limit)
    run = Run(device, source, record, limit, time_limit, long)
    try:
        run.measure_rounds(once, 1)
        run.measure_rounds(jobs, rounds)
    except KeyboardInterrupt:
        console.print("interrupted; finished measurements are kept")
        raise typer.Exit(130) from None
    finally:
        record.write_document()


if __name__ == "__main__":
    typer.run(main)
