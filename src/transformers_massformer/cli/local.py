"""The part of `massformer segment` that runs on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..segmenting.checks import check_extras, record_class_names
from ..segmenting.jobs import Extras, Job, job_standing, plan_jobs
from .console import console, error_console, fail_interrupted, open_jobs, progress_bar
from .options import DType, choose_photos, load_predictor
from .processes import from_main, gather, in_all, join_processes, own_device


if TYPE_CHECKING:
    from accelerate import PartialState

    from ..inference.predictor import PredictionOptions
    from ..inference.segmenter import Segmenter
    from ..segmenting.pipeline import Pipeline
    from ..segmenting.steps import Outcome


# What is wrong with the paths, and with the model and the pictures asked for.
PLAN_ERRORS = OSError, ValueError
MODEL_ERRORS = OSError, ValueError, RuntimeError, AssertionError, ImportError


@dataclass(frozen=True)
class Request:
    """What `segment` is asked for; the names are those of its arguments."""

    paths: list[str]
    model: str
    output: str
    extras: Extras
    options: PredictionOptions
    device: str | None
    dtype: DType
    overwrite: bool
    workers: int | None

    @property
    def folder(self) -> Path:
        """Return the output as a folder of this machine."""
        return Path(self.output)


def name_count(count: int) -> str:
    """Format a number of photographs."""
    return "1 photograph" if count == 1 else f"{count} photographs"


def end(jobs: Sequence[Job], failed: int, kept: int, start: float):
    """Print what became of the jobs, and end the command with its exit code."""
    if jobs:
        also_kept = f", {kept} kept" if kept else ""
        seconds = time.perf_counter() - start
        console.print(f"{len(jobs) - failed} segmented, {failed} failed{also_kept}, {seconds:.1f} s")
    if failed or kept:
        raise typer.Exit(1)


def plan(request: Request) -> tuple[list[Job], int, dict[str, Any]]:
    """Return the jobs to do, how many results are in the way and kept, and the settings of the prediction."""
    from ..inference.identity import prediction_settings
    from ..utils.resuming import Results

    output, extras = request.folder, request.extras
    jobs = plan_jobs(choose_photos(request.paths, output), output, extras)
    output.mkdir(parents=True, exist_ok=True)
    prediction = prediction_settings(request.model, request.options, request.dtype)
    results = Results(output)
    standings = [job_standing(results, extras.origins(job, prediction)) for job in jobs]
    return *open_jobs(jobs, standings, request.overwrite), prediction


def load(request: Request, state: PartialState) -> Segmenter:
    """Load the model and check that it can make the pictures asked for."""
    import torch

    device = own_device(state, request.device)
    predictor = load_predictor(request.model, device, getattr(torch, request.dtype), request.options)
    segmenter = request.extras.segmenter(predictor)
    check_extras(request.extras, segmenter.labels)
    return segmenter


def print_outcome(outcome: Outcome):
    """Print the line of a job, or its error."""
    if outcome.error:
        error_console.print(f"failed: {outcome.job.name}: {outcome.error}", style="red", markup=False)
    else:
        console.print(outcome.line, markup=False)


def segment_share(jobs: Sequence[Job], pipeline: Pipeline, state: PartialState) -> int:
    """Segment this process's share of the photographs, print a line for each, and return how many failed."""
    share = jobs[state.process_index :: state.num_processes]
    failed = 0
    with progress_bar() as progress:
        task = progress.add_task("segmenting", total=len(share), visible=state.is_main_process)

        def report(outcome: Outcome):
            nonlocal failed
            failed += bool(outcome.error)
            print_outcome(outcome)
            progress.update(task, advance=1)

        pipeline.run(share, report)
    return failed


def segment_all(request: Request, jobs: Sequence[Job], prediction: dict[str, Any], state: PartialState) -> int:
    """Load the model, segment the photographs in all processes, and return how many failed."""
    # Not at the top, for they import Pillow.
    from ..segmenting.pipeline import Pipeline, default_workers
    from ..segmenting.steps import Steps
    from ..utils.resuming import Results

    results = Results(request.folder)
    segmenter = in_all(state, lambda: load(request, state), MODEL_ERRORS)
    remark = from_main(state, lambda: record_class_names(request.folder, segmenter.labels, results, jobs), PLAN_ERRORS)
    if state.is_main_process:
        if remark:
            error_console.print(remark, markup=False)
        shared = f", in {state.num_processes} processes" if state.num_processes > 1 else ""
        precision = str(segmenter.dtype).removeprefix("torch.")
        console.print(f"Segmenting {name_count(len(jobs))} on {segmenter.device} in {precision}{shared}", markup=False)
    workers = default_workers(state.num_processes) if request.workers is None else request.workers
    pipeline = Pipeline(Steps.around(segmenter, results, request.extras, prediction), segmenter, workers)
    return sum(gather(state, segment_share(jobs, pipeline, state)))


def segment_here(request: Request):
    """Segment photographs on this machine, in one process or in those of a launcher."""
    state = join_processes(request.device)
    remaining, kept, prediction = from_main(state, lambda: plan(request), PLAN_ERRORS)
    failed, start = 0, time.perf_counter()
    if remaining:
        try:
            failed = segment_all(request, remaining, prediction, state)
        except KeyboardInterrupt:
            fail_interrupted()
    state.destroy_process_group()
    # Its exit code is that of the command.
    if not state.is_main_process:
        return
    end(remaining, failed, kept, start)
