"""massformer scenes: procedural scenes as files in the layout of MaSS13K."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..scenes import SceneFiles, check_size, render_scene, split_folder
from .console import console, fail, progress_bar


@dataclass(frozen=True)
class Job:
    """One scene to render."""

    seed: int
    index: int
    size: tuple[int, int]
    files: SceneFiles


def parse_size(text: str) -> tuple[int, int]:
    """ "4096x3072" to (4096, 3072), width first."""
    with contextlib.suppress(ValueError):
        width, height = (int(side) for side in text.split("x"))
        check_size((width, height))
        return width, height
    raise ValueError(f"{text} is no size: give WIDTHxHEIGHT, each side from 16 to 16384, such as 4096x3072.")


def check_other_splits(output: Path, files: SceneFiles):
    """Raises a ValueError if a scene is in another split already: scenes of one seed are the same ones."""
    for path in (output / "annotations").glob(f"*/{files.label.name}"):
        if path != files.label:
            raise ValueError(
                f"{path} is the same scene as {files.label} would be, in another split. Choose another --seed."
            )


def plan_jobs(output: Path, count: int, size: tuple[int, int], seed: int, split: str, alpha: bool) -> list[Job]:
    """The scenes that are not finished."""
    jobs = []
    for index in range(count):
        files = SceneFiles(output, split, seed, index, alpha)
        check_other_splits(output, files)
        if not files.exist(size):
            jobs.append(Job(seed, index, size, files))
    return jobs


def do_job(job: Job):
    job.files.write(render_scene(job.seed, job.index, job.size))


def start_worker():
    # At Ctrl-C a worker ends at once and silently: its scene is rendered again the next time.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_jobs(jobs: list[Job], processes: int) -> Iterator[None]:
    """Does the jobs, and yields whenever one is done."""
    processes = min(processes, len(jobs))
    if processes == 1:
        for job in jobs:
            yield do_job(job)
        return
    # Where it can, one process imports the package and the workers are copies of it.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([__name__])
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
    output: Annotated[Path, typer.Option(help="Folder of the data set; made if it does not exist.")],
    count: Annotated[int, typer.Option(help="How many scenes.")] = 100,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "4096x3072",
    seed: Annotated[int, typer.Option(help="Source of all scenes; give each split another.")] = 0,
    split: Annotated[str, typer.Option(help="train, val (or validation) or test.")] = "train",
    alpha: Annotated[
        bool, typer.Option("--alpha", help="Also write the alpha of every class, and of bicycles.")
    ] = False,
    processes: Annotated[int | None, typer.Option(help="By default one per core; each takes up to 2 GB.")] = None,
):
    """Writes procedural scenes with exact labels, in the layout of MaSS13K. What is finished already is skipped.

    The files are images/SPLIT/NAME.jpg and annotations/SPLIT/NAME.png, and with --alpha alphas/SPLIT/NAME/CLASS.png.
    """
    processes = os.cpu_count() or 1 if processes is None else processes
    try:
        if count < 1 or seed < 0 or processes < 1:
            raise ValueError(
                f"--count {count}, --seed {seed}, --processes {processes}: the seed must be 0 or more, the others "
                "1 or more."
            )
        split_folder(split)
        jobs = plan_jobs(output, count, parse_size(size), seed, split, alpha)
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK):
            raise PermissionError(f"{output} cannot be written to. Choose another --output.")
    except (OSError, ValueError) as error:
        fail(error)
    if len(jobs) < count:
        console.print(f"{count - len(jobs)} of {count} are done already.")
    if not jobs:
        return
    start = time.perf_counter()
    with progress_bar() as progress:
        try:
            for _ in progress.track(run_jobs(jobs, processes), total=len(jobs), description="rendering"):
                pass
        except KeyboardInterrupt:
            remove_partial_files(jobs)
            fail("interrupted. What is finished is kept; the same command goes on from there.", code=130)
        except BrokenProcessPool:
            remove_partial_files(jobs)
            fail("A process ended unexpectedly, perhaps for lack of memory. Run again with fewer --processes.")
        except OSError as error:
            fail(error)
    seconds = time.perf_counter() - start
    console.print(f"{len(jobs)} scenes in {output}, {seconds:.1f} s", markup=False)


def remove_partial_files(jobs: list[Job]):
    """What ended workers left behind."""
    for job in jobs:
        for path in job.files.partial_paths:
            path.unlink(missing_ok=True)
