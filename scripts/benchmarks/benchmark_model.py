"""
Time and memory of MaSSFormer beside transformers' Mask2Former-R50, MaskFormer-R50 and SegFormer-B2, all with random
weights: inference at several sizes, a training step, single deformable convolutions, cost against the number of
pixels, and how near that comes to what the machine can do. Writes a document, and beside it the figures it is made of.

The figures of a device (CPU, CUDA) replace that device's earlier ones, section by section; the others stay. What has
been measured is kept when the run is interrupted. For Linux.
"""

import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from benchmark_report import Results, add_measurement, key_text, memory_text, render, seconds_text
from benchmark_worker import DEFORMABLE_LAYERS, FORWARD, FORWARD_BACKWARD, PEERS, Contestant, failure
from rich.console import Console
from rich.progress import track

from transformers_massformer.conversion import VARIANTS
from transformers_massformer.inference.loading import default_device
from transformers_massformer.inference.memory import available_memory
from transformers_massformer.utils.files import written_whole


WORKER = Path(__file__).parent / "benchmark_worker.py"
# What computes deformable convolutions on a device; the first is the automatic choice.
ENGINES = {"cpu": ["banded", "torchvision"], "cuda": ["triton", "torchvision", "banded"]}
DTYPES = {"cpu": ["float32"], "cuda": ["float32", "bfloat16", "float16"]}
# Images of more pixels than this are large.
LARGE_PIXELS = 2048 * 2048
PACKAGES = ("torch", "torchvision", "transformers", "transformers-massformer", "triton", "deformops")
console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Job:
    """What one process measures: some keys of a section."""

    section: str
    keys: list[dict[str, Any]]


def split(text: str) -> list[str]:
    """The items of a list with commas."""
    return [item.strip() for item in text.split(",") if item.strip()]


def parse_size(text: str) -> list[int]:
    """ "3072x4096" to [3072, 4096], height first."""
    with contextlib.suppress(ValueError):
        height, width = (int(side) for side in text.split("x"))
        if height > 0 and width > 0 and height % 32 == width % 32 == 0:
            return [height, width]
    raise typer.BadParameter(f"{text} is no HEIGHTxWIDTH, both multiples of 32, such as 3072x4096.")


def check_choices(names: list[str], choices: Iterable[str], what: str) -> list[str]:
    unknown = [name for name in names if name not in choices]
    if unknown or not names:
        raise typer.BadParameter(f"{what}: choose from {', '.join(choices)}; got {', '.join(names) or 'none'}.")
    return names


def inference_contestants(
    variants: list[str], other_engines: list[str], dtypes: list[str], peers: bool, compile: bool
) -> list[Contestant]:
    """
    In the first type: the peers, every variant fused, and the first variant also as it is loaded and with each engine
    that is not the automatic choice. In the other types: every variant fused. If asked for, the peers and the fused
    variants once more, compiled.
    """
    contestants = [Contestant(peer, dtypes[0]) for peer in PEERS if peers]
    contestants += [Contestant(f"massformer-{variant}", dtype, fuse=True) for dtype in dtypes for variant in variants]
    compiled = [Contestant(c.model, c.dtype, c.fuse, compile=True) for c in contestants if compile]
    contestants.append(Contestant(f"massformer-{variants[0]}", dtypes[0]))
    for engine in other_engines:
        contestants.append(Contestant(f"massformer-{variants[0]}", dtypes[0], fuse=True, engine=engine))
    return contestants + compiled


def training_contestants(
    variants: list[str], other_engines: list[str], dtypes: list[str], peers: bool
) -> list[Contestant]:
    """In each type: the peers, every variant, and the first with each engine that is not the automatic choice."""
    contestants = []
    for dtype in dtypes:
        contestants += [Contestant(peer, dtype) for peer in PEERS if peers]
        contestants += [Contestant(f"massformer-{variant}", dtype) for variant in variants]
        for engine in other_engines:
            contestants.append(Contestant(f"massformer-{variants[0]}", dtype, engine=engine))
    return contestants


def contestant_jobs(section: str, contestants: list[Contestant], conditions: dict[str, Any]) -> list[Job]:
    """A process for each contestant."""
    return [Job(section, [{"contestant": asdict(contestant), **conditions}]) for contestant in contestants]


def deformable_jobs(engines: list[str], dtypes: list[str], size: list[int]) -> list[Job]:
    """A process for each engine and type, for single layers; then the same for a whole forward."""
    candidates = [*engines, *(["deformops"] if importlib.util.find_spec("deformops") else [])]
    jobs = []
    for dtype in dtypes:
        for engine in candidates:
            conditions = {"engine": engine, "dtype": dtype, "size": size}
            steps = [(layer, step) for layer in DEFORMABLE_LAYERS for step in (FORWARD, FORWARD_BACKWARD)]
            jobs.append(Job("deformable", [{"layer": layer, "step": step, **conditions} for layer, step in steps]))
        for engine in engines:
            jobs.append(Job("shares", [{"engine": engine, "dtype": dtype, "size": size}]))
    return jobs


def reference_jobs(contestants: list[Contestant], sizes: list[list[int]]) -> list[Job]:
    """What needs measuring only once: operations of each model, and what the machine can do."""
    models = dict.fromkeys(contestant.model for contestant in contestants)
    jobs = [Job("flops", [{"model": model, "size": size} for size in sizes]) for model in models]
    ceilings = dict.fromkeys([*(contestant.dtype for contestant in contestants), "bfloat16", "copy"])
    return [*jobs, Job("ceilings", [{"ceiling": ceiling} for ceiling in ceilings])]


def machine(device: str) -> str:
    """The machine in words: processor, cores, memory, and the GPU if it is used."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    words = [processor or platform.machine(), f"{os.cpu_count()} cores", f"{memory_text(memory)} of memory"]
    if torch.device(device).type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        words.append(f"{gpu.name} with {memory_text(gpu.total_memory)}")
    return ", ".join(words)


def versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def run_worker(job: Job, device: str, memory_limit: int | None, time_limit: float) -> list[dict[str, Any]]:
    """Measures in a process of its own; what ends that process is recorded for the keys it did not get to."""
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
    """How a measurement came out, for the progress."""
    if measurement["status"] != "ok":
        return f"{measurement['status']} {measurement.get('detail', '')}".rstrip()
    texts = {"seconds": seconds_text, "peak_bytes": memory_text, "deformable_seconds": seconds_text}
    return ", ".join(texts.get(name, "{:.4g}".format)(number) for name, number in measurement["values"].items())


def write_whole(path: Path, text: str):
    """Writes a file that is either as before or whole, also when interrupted."""
    with written_whole(path) as partial:
        partial.write_text(text)


def describe_run(
    device: str, rounds: int, memory_limit: int | None, time_limit: float, script: str = "benchmark_model.py"
) -> dict[str, Any]:
    """What is to be known about the figures of a run."""
    return {
        "machine": machine(device),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="minutes"),
        "command": shlex.join(["python", f"scripts/{script}", *sys.argv[1:]]),
        "rounds": rounds,
        "memory_limit": "none" if memory_limit is None else memory_text(memory_limit),
        "time_limit": time_limit,
    }


@dataclass
class Run:
    """Measures jobs, and keeps the results in a file as they come."""

    device: str
    source: dict[str, Any]
    results: Results
    results_path: Path
    memory_limit: int | None
    time_limit: float
    long: float

    def measure(self, job: Job) -> bool:
        """Returns whether a further round is worth while: something was measured, and soon."""
        measurements = run_worker(job, self.device, self.memory_limit, self.time_limit)
        for measurement in measurements:
            add_measurement(self.results, torch.device(self.device).type, job.section, self.source, measurement)
            console.print(f"{job.section}, {key_text(measurement['key'])}: {describe(measurement)}", markup=False)
        write_whole(self.results_path, json.dumps(self.results, indent=1) + "\n")
        seconds = [x["values"].get("seconds", 0) for x in measurements if x["status"] == "ok"]
        return bool(seconds) and max(seconds) <= self.long

    def measure_rounds(self, jobs: list[Job], rounds: int):
        """Each round goes through all jobs, but for those that came to nothing before or took long."""
        for index in range(rounds):
            console.print(f"round {index + 1} of {rounds}: {len(jobs)} processes")
            jobs = [job for job in track(jobs, description="measuring", console=console) if self.measure(job)]


def main(
    sizes: Annotated[str, typer.Option(help="Images, HEIGHTxWIDTH, ...")] = "1024x1024,2048x2048,3072x4096,4096x4096",
    variants: Annotated[str, typer.Option(help="MaSSFormers; the first is run in more ways.")] = ",".join(VARIANTS),
    engines: Annotated[str | None, typer.Option(help="Of deformable convolutions; by default the device's.")] = None,
    dtypes: Annotated[str | None, typer.Option(help="By default float32, on CUDA bfloat16 and float16 too.")] = None,
    peers: Annotated[bool, typer.Option(help="Whether to measure the other models.")] = True,
    compile: Annotated[bool, typer.Option(help="Whether to measure compiled models too.")] = False,
    inference: Annotated[bool, typer.Option(help="Whether to measure inference.")] = True,
    training: Annotated[bool, typer.Option(help="Whether to measure the training step.")] = True,
    deformable: Annotated[bool, typer.Option(help="Whether to measure single deformable convolutions.")] = True,
    crop_size: Annotated[str, typer.Option(help="Of training, HEIGHTxWIDTH.")] = "1024x1024",
    batch_size: Annotated[int, typer.Option(help="Of training; MaSSFormer needs two.", min=2)] = 2,
    deformable_size: Annotated[str, typer.Option(help="Image whose maps are convolved, HEIGHTxWIDTH.")] = "2048x2048",
    large_models: Annotated[
        str | None, typer.Option(help="Variants and other models to run at more than 2048x2048; by default all.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Each goes through everything once.", min=1)] = 3,
    long: Annotated[float, typer.Option(help="What takes more seconds is measured in one round only.")] = 600,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default the fastest.")] = None,
    memory_limit: Annotated[
        float | None, typer.Option(help="GiB for a process, on the CPU; by default 90% of what is available.")
    ] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds for a process.")] = 1800,
    output: Annotated[Path, typer.Option(help="The document.")] = Path("docs/benchmarks.md"),
    results: Annotated[Path | None, typer.Option(help="The figures; by default beside the document.")] = None,
    render_only: Annotated[bool, typer.Option("--render-only", help="Measure nothing, write the document.")] = False,
):
    results_path = results or output.with_suffix(".json")
    measured: Results = json.loads(results_path.read_text()) if results_path.exists() else {}
    if render_only:
        write_whole(output, render(measured, results_path.name))
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
    source = describe_run(device, rounds, limit, time_limit)
    run = Run(device, source, measured, results_path, limit, time_limit, long)
    try:
        run.measure_rounds(once, 1)
        run.measure_rounds(jobs, rounds)
    except KeyboardInterrupt:
        console.print("interrupted; what has been measured is kept")
        raise typer.Exit(130) from None
    finally:
        write_whole(output, render(measured, results_path.name))


if __name__ == "__main__":
    typer.run(main)
