"""The part of `massformer segment` that runs on a Ray cluster."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import console, error_console, fail, fail_interrupted, open_jobs, progress_bar
from .local import Request, end, name_count, print_outcome
from .options import DEMO_CHECKPOINT, DType, choose_photos, demo_checkpoint, find_model, load_predictor


if TYPE_CHECKING:
    from ..cluster.destinations import Destination
    from ..cluster.worker import Task
    from ..inference.predictor import PredictionOptions, Predictor
    from ..segmenting.jobs import Extras, Job


DIED = "the process that segmented it died each time; perhaps memory is short"


@dataclass(frozen=True)
class Cluster:
    """
    Options of a cluster.

    Args:
        address (`str`): See [`connected`].
        num_actors (`int`, *optional*): See [`plan_resources`], as the next two.
        cpus_per_actor (`int`, *optional*): Processors of each.
        gpus_per_actor (`float`): GPUs of each.
        image_column (`str`, *optional*): See [`find_column`].
        writes_rows (`bool`): Whether results are Parquet files.
        limits (`tuple[float | None, bool]`): Arguments of [`accept_photos`].
    """

    address: str
    num_actors: int | None
    cpus_per_actor: int | None
    gpus_per_actor: float
    image_column: str | None
    writes_rows: bool
    limits: tuple[float | None, bool]


def portable_name(model: str) -> str:
    """Return a name of a model that holds on other machines and in other folders."""
    if not Path(model).exists():
        return model
    path = Path(model).absolute()
    with contextlib.suppress(FileNotFoundError):
        if path.resolve() == demo_checkpoint():
            return DEMO_CHECKPOINT
    return str(path)


def load_there(
    name: str, dtype: DType, options: PredictionOptions, device: str | None
) -> tuple[Predictor, dict[str, Any]]:
    """Load a model by its portable name, and describe the prediction as it is on the machine that loads it."""
    import torch

    from ..inference.identity import prediction_settings

    model = find_model(name) or name
    return load_predictor(model, device, getattr(torch, dtype), options), prediction_settings(model, options, dtype)


def segment_on_cluster(request: Request, cluster: Cluster):
    """Segment photographs on a Ray cluster."""
    from ..cluster.connection import check_address
    from ..cluster.destinations import Files, Rows
    from ..cluster.photographs import find_photographs
    from ..cluster.worker import Task
    from ..inference.identity import prediction_settings
    from ..utils.extras import require

    require("ray.data", "ray", "--ray")
    extras, options, dtype = request.extras, request.options, request.dtype
    try:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("--ray starts processes of its own; leave out accelerate launch or torchrun.")
        check_address(cluster.address)
        prediction = prediction_settings(request.model, options, dtype)
        destination = (Rows if cluster.writes_rows else Files)(request.output, extras, prediction)
        find_local = functools.partial(choose_photos, output=request.folder)
        found = find_photographs(request.paths, cluster.image_column, find_local)
        jobs = destination.plan(found)
        standings = destination.standings(jobs, request.overwrite)
    except (OSError, ValueError) as error:
        fail(error)
    remaining, kept = open_jobs(jobs, standings, request.overwrite)
    failures: list[tuple[str, str]] = []
    start = time.perf_counter()
    if remaining:
        load = functools.partial(load_there, portable_name(request.model), dtype, options)
        check_model(functools.partial(load, "cpu"), extras, destination, remaining)
        # Without a share of GPUs, processes see none.
        load = functools.partial(load, None if cluster.gpus_per_actor else "cpu")
        shared, overwrite = destination.shared, request.overwrite
        task = Task(load, request.model, prediction, extras, shared, found.column, overwrite, *cluster.limits)
        failures = run(task, destination, remaining, cluster)
    try:
        destination.write_failures(failures)
    except OSError as error:
        fail(error)
    end(remaining, len(failures), kept, start)


def check_model(load: Any, extras: Extras, destination: Destination, jobs: Sequence[Job]):
    """Load the model on this machine once: what is wrong with it or the options is better known before the cluster."""
    from ..segmenting.checks import check_extras

    try:
        predictor, _ = load()
        segmenter = extras.segmenter(predictor)
        check_extras(extras, segmenter.labels)
        remark = destination.start(segmenter.labels, jobs)
    except (OSError, ValueError, RuntimeError, AssertionError) as error:
        fail(error)
    if remark:
        error_console.print(remark, markup=False)


def run(task: Task, destination: Destination, jobs: Sequence[Job], cluster: Cluster) -> list[tuple[str, str]]:
    """Segment the photographs of jobs and return the address and error of each that failed."""
    from ..cluster.connection import shared_memory_remark
    from ..cluster.pool import Broken

    remark = shared_memory_remark() if cluster.address == "local" else ""
    if remark:
        error_console.print(remark, markup=False)
    try:
        try:
            return collect(task, destination, jobs, cluster)
        finally:
            destination.finish()
    except KeyboardInterrupt:
        fail_interrupted()
    except (OSError, ValueError, Broken) as error:
        fail(error)


def collect(task: Task, destination: Destination, jobs: Sequence[Job], cluster: Cluster) -> list[tuple[str, str]]:
    """Connect to the cluster, print what becomes of each job, and return the failures."""
    from ..cluster.connection import connected, node_resources, plan_resources
    from ..cluster.pool import run_in_pool
    from ..segmenting.steps import Outcome

    failures: list[tuple[str, str]] = []
    wanted = cluster.num_actors, cluster.cpus_per_actor, cluster.gpus_per_actor
    with connected(cluster.address):
        resources = plan_resources(node_resources(), *wanted)
        console.print(f"Segmenting {name_count(len(jobs))} with {resources.describe()}", markup=False)
        with progress_bar() as progress:
            answers = run_in_pool(task.start, jobs, resources)
            for index, answer in progress.track(answers, total=len(jobs), description="segmenting"):
                outcome = answer.outcome if answer else Outcome(jobs[index], error=DIED)
                if outcome.error:
                    failures.append((outcome.job.name, outcome.error))
                elif destination.shards is not None:
                    destination.shards.add(answer.row)
                print_outcome(outcome)
    return failures
