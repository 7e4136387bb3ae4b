"""
Do everything that wants a GPU, in a given time: check the Triton engine of the deformable convolutions against
torchvision, measure the columns of the benchmarks, and train the photo checkpoint in the rest of the time.

Each part stops in time, and a failure of one does not stop the next. The output folder gets `report.json` and
`report.md`, `benchmarks.json` and `benchmarks.md` (those in docs/ with the new figures, to be copied there),
`training.log`, and what the training wrote in `training.tar.00`, ...: `cat training.tar.* | tar x` in the training's
folder restores it. No file is larger than 15 MiB. For Linux.
"""

import concurrent.futures
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer


sys.path.append(str(Path(__file__).parent / "benchmarks"))
import benchmark_report
from benchmark_model import (
    Contestant,
    Job,
    Run,
    check_choices,
    contestant_jobs,
    deformable_jobs,
    reference_jobs,
    run_worker,
    split,
)
from benchmark_record import RESULTS_FILE, ROOT, Record, describe_run, machine, write_whole
from benchmark_worker import DEFORMABLE_LAYERS, HUB

from transformers_massformer.cli.console import error_console as console
from transformers_massformer.inference.loading import default_device
from transformers_massformer.inference.memory import available_memory
from transformers_massformer.models.deform_conv import is_triton_available
from transformers_massformer.utils.text import markdown_table


TRAINING = Path(__file__).parent / "train_photo.py"
# Seconds at the end of the training's time in which it saves what it has, and bytes and number of its packed files.
SECONDS_TO_SAVE, PIECE_BYTES, MAX_PIECES = 20, 15 * 2**20, 3
# End of each part as a share of the time; the last one ends with the time.
ENDS = {"accuracy": 0.15, "benchmarks": 0.6, "training": 1.0}
# What the benchmarks measure on each kind of device: a CPU only shows that they run.
SCALES: dict[str, dict[str, Any]] = {
    "cuda": {
        "sizes": [[1024, 1024], [2048, 2048], [4096, 4096]],
        "crop": [1024, 1024],
        "dtypes": ["float32", "bfloat16", "float16"],
        "training_dtypes": ["float32", "bfloat16"],
        "engines": ["triton", "torchvision"],
    },
    "cpu": {
        "sizes": [[64, 64], [128, 128]],
        "crop": [64, 64],
        "dtypes": ["float32"],
        "training_dtypes": ["float32"],
        "engines": ["banded", "torchvision"],
    },
}
BATCH_SIZE = 2


@dataclass
class Report:
    """What became of each part."""

    device: str
    record: Record
    source: dict[str, Any]
    work: Path
    output: Path
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Name the kind of device."""
        return torch.device(self.device).type

    def write(self):
        """Write the report and the document of the benchmarks."""
        content = {**self.source, "parts": self.parts}
        write_whole(self.output / "report.json", json.dumps(content, indent=1) + "\n")
        write_whole(self.output / "report.md", self.text())
        self.record.write_document()

    def text(self) -> str:
        """Format the report in Markdown."""
        lines = [[name, part["status"], f"{part['seconds']:.0f} s", part["note"]] for name, part in self.parts.items()]
        results, kind = self.record.results, self.kind
        tables = {
            "Parts": markdown_table([["part", "status", "time", "note"], *lines]),
            "Accuracy": benchmark_report.accuracy_table(results, kind),
            "Deformable convolutions": benchmark_report.deformable_table(results, kind),
            "Inference": benchmark_report.comparison_tables({kind: results.get(kind, {})}, "inference"),
            "Training step": benchmark_report.comparison_tables({kind: results.get(kind, {})}, "training"),
        }
        parts = [f"## {title}\n\n{table.strip() or 'Not measured.'}\n" for title, table in tables.items()]
        return "\n".join([f"# Report on {self.source['machine']}\n", *parts])


def accuracy_cases(size: int = 45) -> list[dict[str, Any]]:
    """List the cases of the accuracy check: every layer of MaSSFormer-R50, far offsets, bands of rows, odd sizes."""
    layers = dict.fromkeys(layer[:3] for layer in DEFORMABLE_LAYERS.values())
    usual = {"size": [size - 8, size], "rows": [0, size - 8], "offset_pixels": 2.0}
    cases = [{"channels": list(channels), "kernel_size": side, **usual} for *channels, side in layers]
    far = {**usual, "offset_pixels": 2.0 * size}
    band = {**usual, "rows": [5, 18]}
    cases += [{"channels": [64, 64], "kernel_size": side, **case} for case in (far, band) for side in (1, 3, 5, 7)]
    odd = [([3, 5], [1, 7]), ([67, 33], [33, 1]), ([130, 2], [19, 17])]
    cases += [
        {"channels": channels, "kernel_size": 3, "size": shape, "rows": [0, shape[0]], "offset_pixels": 1.0}
        for channels, shape in odd
    ]
    return cases


def check_accuracy(report: Report, seconds: float) -> str:
    """Check the Triton engine, all dtypes at once; this also compiles most kernels that the benchmarks need."""
    if report.kind != "cuda" or not is_triton_available():
        return "not available: Triton's kernels need a GPU and Triton"
    dtypes = SCALES["cuda"]["dtypes"]
    jobs = [
        Job("accuracy", [{"engine": "triton", "dtype": dtype, **case} for case in accuracy_cases()])
        for dtype in dtypes
    ]
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        found = list(pool.map(lambda job: run_worker(job, report.device, None, seconds), jobs))
    for measurement in itertools.chain.from_iterable(found):
        report.record.add(report.device, "accuracy", report.source, measurement)
    rows = benchmark_report.section_rows(report.record.results, report.kind, "accuracy")
    return f"{sum(map(benchmark_report.is_accurate, rows))} of {len(rows)} cases within the bounds"


def benchmark_jobs(kind: str) -> list[Job]:
    """List what to measure, the most wanted first, in few processes: starting one takes as long as measuring."""
    scale = SCALES[kind]
    checkpoints = sorted(path.parent.name for path in HUB.glob("massformer-*/config.json"))
    pair = ["massformer-r50", benchmark_report.BASELINE]

    def job(section: str, model: str, dtypes: list[str], conditions: list[dict[str, Any]], fuse: bool = False) -> Job:
        contestants = [
            Contestant(model, dtype, fuse=fuse and model not in benchmark_report.MODEL_TITLES) for dtype in dtypes
        ]
        jobs = [each for condition in conditions for each in contestant_jobs(section, contestants, condition)]
        return Job(section, [key for each in jobs for key in each.keys])

    sizes, crop = [{"size": size} for size in scale["sizes"]], [{"size": scale["crop"], "batch_size": BATCH_SIZE}]
    jobs = [job("inference", model, scale["dtypes"], sizes, fuse=True) for model in pair]
    jobs += [job("training", model, scale["training_dtypes"], crop) for model in pair]
    layers = [
        x for x in deformable_jobs(scale["engines"], scale["dtypes"], scale["sizes"][1]) if x.section == "deformable"
    ]
    for engine in scale["engines"]:
        jobs.append(Job("deformable", [key for x in layers for key in x.keys if key["engine"] == engine]))
    jobs += [job("inference", model, scale["dtypes"], sizes, fuse=True) for model in checkpoints]
    contestants = [Contestant(model, dtype) for model in [*pair, *checkpoints] for dtype in scale["dtypes"]]
    once = reference_jobs(contestants, scale["sizes"])
    return [*jobs, once[-1], *once[:-1]]


def measure_benchmarks(report: Report, seconds: float) -> str:
    """Measure until the time is over; what is not finished then is left out."""
    end, jobs = time.monotonic() + seconds, benchmark_jobs(report.kind)
    limit = int(0.9 * available_memory(torch.device(report.device))) if report.kind == "cpu" else None
    run = Run(report.device, report.source, report.record, limit, seconds, seconds)
    for done, job in enumerate(jobs):
        run.time_limit = end - time.monotonic()
        if run.time_limit <= 0:
            return f"{done} of {len(jobs)} processes in time"
        run.measure(job)
    return f"all {len(jobs)} processes"


def train(report: Report, seconds: float) -> str:
    """Train the photo checkpoint from where it stands in the work folder, and pack what the training wrote."""
    started, minutes = time.time(), max(0.0, seconds - SECONDS_TO_SAVE) / 60
    command = [sys.executable, str(TRAINING), "--work", str(report.work), "--minutes", f"{minutes:.2f}"]
    log = report.output / "training.log"
    with log.open("wb") as stream:
        # A session of its own, so that the processes that it starts end with it.
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            ended = f"ended with status {process.wait(seconds)}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            ended = "stopped at the end of the time"
    log.write_bytes(log.read_bytes()[-PIECE_BYTES:])
    left_out = pack(report.work, report.output, started)
    if process.returncode != 0:
        raise RuntimeError(f"{TRAINING.name} {ended}; see {log.name}")
    return f"{minutes:.1f} minutes" + (f"; too large to pack: {', '.join(left_out)}" if left_out else "")


def pack(folder: Path, output: Path, since: float) -> list[str]:
    """Pack the files of a folder changed since a time, newest first, in pieces; return those that did not fit."""
    changed = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mtime >= since]
    buffer, left_out, limit = io.BytesIO(), [], MAX_PIECES * PIECE_BYTES - 2 * tarfile.RECORDSIZE
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(changed, key=lambda path: path.stat().st_mtime, reverse=True):
            name = str(path.relative_to(folder))
            if buffer.tell() + path.stat().st_size + tarfile.RECORDSIZE > limit:
                left_out.append(name)
            else:
                archive.add(path, name)
    content = buffer.getvalue() if len(changed) > len(left_out) else b""
    for index in range(0, len(content), PIECE_BYTES):
        (output / f"training.tar.{index // PIECE_BYTES:02}").write_bytes(content[index : index + PIECE_BYTES])
    return left_out


PARTS: dict[str, Callable[[Report, float], str]] = {
    "accuracy": check_accuracy,
    "benchmarks": measure_benchmarks,
    "training": train,
}


def run_part(report: Report, name: str, seconds: float):
    """Run a part and note what became of it."""
    start = time.monotonic()
    try:
        part = {"status": "done", "note": PARTS[name](report, seconds)}
    except Exception as error:
        console.print_exception()
        part = {"status": "failed", "note": f"{type(error).__name__}: {error}"}
    report.parts[name] = {**part, "seconds": time.monotonic() - start}
    report.write()
    console.print(f"{name}: {part['status']}, {part['note']}", markup=False)


def main(
    output: Annotated[Path, typer.Option(help="Folder for the report; files in it are replaced.")],
    minutes: Annotated[float, typer.Option(help="Time for everything.")] = 10,
    only: Annotated[str, typer.Option(help="Parts to run, of: accuracy, benchmarks, training.")] = ",".join(PARTS),
    work: Annotated[Path, typer.Option(help="Folder of the training, which resumes there.")] = Path("train-photo"),
    device: Annotated[str | None, typer.Option(help="By default a GPU if there is one.")] = None,
):
    start, names = time.monotonic(), check_choices(split(only), PARTS, "--only")
    device = device or default_device()
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / RESULTS_FILE, output / RESULTS_FILE.name)
    record = Record(output / RESULTS_FILE.name, output / "benchmarks.md")
    source = describe_run(__file__, device, rounds=1) | {
        "command": f"python scripts/gpu_report.py --minutes {minutes:g} --output DIR"
    }
    report = Report(device, record, source, work, output)
    console.print(machine(device), markup=False)
    for name in names:
        end = 1.0 if name == names[-1] else ENDS[name]
        run_part(report, name, end * 60 * minutes - (time.monotonic() - start))


if __name__ == "__main__":
    typer.run(main)
