"""massformer scenes: write procedural scenes in the layout of MaSS13K."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import console, fail, fail_interrupted, progress_bar
from .options import parse_size


if TYPE_CHECKING:
    from ..scenes import SceneFiles


@dataclass(frozen=True)
class Job:
    """One scene to render."""

    seed: int
    index: int
    size: tuple[int, int]
    files: SceneFiles


def check_other_splits(output: Path, files: SceneFiles):
    """
    Check that a scene is in no other split: the same seed gives the same scenes.

    Raises:
        ValueError: If it is.
    """
    for path in (output / "annotations").glob(f"*/{files.label.name}"):
        if path != files.label:
            raise ValueError(
                f"{path} is the same scene as {files.label} would be, in another split. Choose another --seed."
            )


def plan_jobs(output: Path, count: int, size: tuple[int, int], seed: int, split: str, alpha: bool) -> list[Job]:
    """Return the scenes that are not finished."""
    from ..scenes import SceneFiles

    jobs = []
    for index in range(count):
        files = SceneFiles(output, split, seed, index, alpha)
        check_other_splits(output, files)
        if not files.exist(size):
            jobs.append(Job(seed, index, size, files))
    return jobs


def do_job(job: Job):
    """Render one scene and write its files."""
    from ..scenes import render_scene

    job.files.write(render_scene(job.seed, job.index, job.size))


def start_worker():
    """Let Ctrl-C end a worker at once and silently; its scene is rendered again the next time."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_jobs(jobs: list[Job], processes: int) -> Iterator[None]:
    """Run the jobs, yielding after each."""
    processes = min(processes, len(jobs))
    if processes == 1:
        for job in jobs:
            yield do_job(job)
        return
    # Where the system can fork, one process imports the package and the workers are copies of it.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([__name__, "transformers_massformer.scenes"])
    executor = ProcessPoolExecutor(processes, context, start_worker)
    try:
        for future in as_completed([executor.submit(do_job, job) for job in jobs]):
            yield future.result()
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def scenes(
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder of the data set; created if missing.")],
    count: Annotated[int, typer.Option(help="Number of scenes.")] = 100,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "4096x3072",
    seed: Annotated[int, typer.Option(help="Random seed of all scenes; use a different one for each split.")] = 0,
    split: Annotated[str, typer.Option(help="train, val (or validation) or test.")] = "train",
    alpha: Annotated[
        bool, typer.Option("--alpha", help="Also write the alpha matte of every class, and of bicycles.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(help="Number of processes, each of which takes up to 2 GB. Default: one per core.")
    ] = None,
):
    """Write procedural scenes with exact labels, in the layout of MaSS13K.

    Finished scenes are skipped. The files are images/SPLIT/NAME.jpg and annotations/SPLIT/NAME.png, and with --alpha
    alphas/SPLIT/NAME/CLASS.png.
    """
    from ..scenes import split_folder
    from ..utils.extras import require
    from ..utils.machine import count_processors

    require("aggdraw", "scenes", "massformer scenes")
    processes = count_processors() if processes is None else processes
    try:
        if count < 1 or seed < 0 or processes < 1:
            raise ValueError(
                f"--count {count}, --seed {seed}, --processes {processes}: the seed must be 0 or more, the other "
                "numbers 1 or more."
            )
        split_folder(split)
        jobs = plan_jobs(output, count, parse_size(size), seed, split, alpha)
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK):
            raise PermissionError(f"{output} is not writable. Choose another --output.")
    except (OSError, ValueError) as error:
        fail(error)
    if len(jobs) < count:
        console.print(f"{count - len(jobs)} of {count} scenes are finished already.")
    if not jobs:
        return
    start = time.perf_counter()
    with progress_bar() as progress:
        try:
            for _ in progress.track(run_jobs(jobs, processes), total=len(jobs), description="rendering"):
                pass
        except KeyboardInterrupt:
            remove_partial_files(jobs)
            fail_interrupted()
        except BrokenProcessPool:
            remove_partial_files(jobs)
            fail("A process ended unexpectedly, perhaps for lack of memory. Run again with fewer --processes.")
        except OSError as error:
            fail(error)
    seconds = time.perf_counter() - start
    console.print(f"{len(jobs)} scenes written to {output}, {seconds:.1f} s", markup=False)


def remove_partial_files(jobs: list[Job]):
    """Remove the incomplete files of ended workers."""
    from ..utils.files import remove_left_overs

    for folder in {path.parent for job in jobs for path in job.files.paths}:
        remove_left_overs(folder)
