"""Record the figures of the benchmarks in one JSON file and write the document rendered from them. For Linux."""

import concurrent.futures
import contextlib
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from benchmark_report import Results, Row, find_row, render

from transformers_massformer.utils.files import written_whole
from transformers_massformer.utils.text import format_bytes


ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "torchvision", "transformers", "transformers-massformer", "triton", "deformops")
# Options of every script that adds a section to the document.
ResultsFile = Annotated[Path, typer.Option(help="JSON file with the figures of all benchmarks.")]
Document = Annotated[Path, typer.Option(help="Document rendered from the figures.")]
RESULTS_FILE, DOCUMENT = Path("docs/benchmarks.json"), Path("docs/benchmarks.md")


def write_whole(path: Path, text: str):
    """Write a text file that stays unchanged if the run is interrupted."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def machine(device: str) -> str:
    """Describe the machine: processor, cores, memory, and the GPU if the device is one."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    words = [processor or platform.machine(), f"{os.cpu_count()} cores", f"{format_bytes(memory)} of memory"]
    if torch.device(device).type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        words.append(f"{gpu.name} with {format_bytes(gpu.total_memory)}")
    return ", ".join(words)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of the installed packages."""
    found = {"Python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def now() -> str:
    """Return the time in UTC, to the minute."""
    return datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="minutes")


def command(script: str) -> str:
    """Return the command line of the running script, given its `__file__`."""
    return shlex.join(["python", str(Path(script).resolve().relative_to(ROOT)), *sys.argv[1:]])


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process, so that its peak memory is its own, and return the result."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def describe_run(
    script: str, device: str, rounds: int, memory_limit: int | None = None, time_limit: float = 0
) -> dict[str, Any]:
    """
    Describe where the figures of a run come from: the script (its `__file__`), the measured device, the measurements
    of each figure, and the limits of a process in bytes and seconds (0: none).
    """
    return {
        "machine": machine(device),
        "versions": versions(),
        "date": now(),
        "command": command(script),
        "rounds": rounds,
        "memory_limit": "none" if memory_limit is None else format_bytes(memory_limit),
        "time_limit": time_limit,
    }


def add_measurement(results: Results, device: str, section: str, source: dict[str, Any], measurement: Row):
    """
    Add the figures of one round. The first measurement of a run replaces the section's figures of earlier runs on the
    device, so that compared figures come from one run.
    """
    sections = results.setdefault(device, {})
    if sections.get(section, {}).get("source") != source:
        sections[section] = {"source": source, "rows": []}
    rows = sections[section]["rows"]
    row = find_row(rows, measurement["key"])
    if row is None:
        row = {"values": {}}
        rows.append(row)
    row |= {name: measurement[name] for name in ("key", "status", "detail") if name in measurement}
    for name, value in measurement.get("values", {}).items():
        row["values"].setdefault(name, []).append(value)


class Record:
    """Figures of all benchmarks in a JSON file, to which one run adds, and the document rendered from them."""

    def __init__(self, results_file: Path, document: Path):
        self.results_file, self.document = results_file, document
        self.results: Results = json.loads(results_file.read_text(encoding="utf-8")) if results_file.exists() else {}

    def add(self, device: str, section: str, source: dict[str, Any], measurement: Row):
        """Add the figures of one round, see [`add_measurement`], and save all figures."""
        add_measurement(self.results, torch.device(device).type, section, source, measurement)
        write_whole(self.results_file, json.dumps(self.results, indent=1) + "\n")

    def write_document(self):
        """Render the document from all figures."""
        write_whole(self.document, render(self.results, self.results_file.name))
