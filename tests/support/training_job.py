"""Train a tiny model with `MaSSFormerTrainer` in fresh processes and collect what happened."""

import json
import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path
from unittest import mock

import torch
from transformers import TrainerCallback, set_seed

from support.tiny import RepeatablePoints, tiny_model
from support.tiny_trainer import arguments, items_of, training_set
from transformers_massformer import MaSSFormerImageProcessor
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.training import MaSSFormerTrainer
from transformers_massformer.training.checkpoints import last_checkpoint


# The server has imported everything and started no threads: processes forked from it start at once.
CONTEXT = multiprocessing.get_context("forkserver")
TIMEOUT = 300


class Killer(TrainerCallback):
    """Kill this process after a step, without cleanup."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class GradientRecorder(TrainerCallback):
    """Keep the gradients of every step as the optimiser sees them."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.gradients.append(torch.cat([p.grad.flatten() for p in parameters]).clone())


class UniformLabels(TrainingSet):
    """Training set whose samples have one label everywhere, or their own labels for `None`."""

    label = None

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        if self.label is not None:
            sample["labels"].fill_(self.label)
        return sample


def native_threads() -> list[str]:
    """Return the names of this process's threads, including those unknown to Python."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def job(data: Path, output: Path, environment: dict, options: dict):
    """Train in this process, and write results, gradients and log to the output folder."""
    os.environ.update(environment)
    rank = int(environment.get("RANK", 0))
    with (output / f"log_{rank}.txt").open("w") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    # Workers of data loaders start as in a process of the user's.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    if options.pop("repeatable", False):
        torch.rand = RepeatablePoints()
    evaluate, kill_at = options.pop("evaluate", False), options.pop("kill_at", None)
    labels = options.pop("uniform_labels", None)
    args = arguments(output, **options)
    set_seed(args.seed)
    dataset = training_set(data, UniformLabels)
    dataset.label = None if labels is None else labels[rank]
    recorder = GradientRecorder()
    trainer = MaSSFormerTrainer(
        model=tiny_model(),
        args=args,
        train_dataset=dataset,
        eval_dataset=items_of(data, "val"),
        processing_class=MaSSFormerImageProcessor(),
        callbacks=[recorder] if kill_at is None else [recorder, Killer(kill_at)],
    )
    checkpoint = last_checkpoint(output, args.world_size)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    metrics = trainer.evaluate() if evaluate else {}
    torch.save(recorder.gradients, output / f"gradients_{rank}.pt")
    trainer.end()
    result = {"log": trainer.state.log_history, "metrics": metrics, "threads": native_threads()}
    (output / f"result_{rank}.json").write_text(json.dumps(result))


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def process_environments(processes: int) -> list[dict[str, str]]:
    """Return the variables that a launcher sets for each of several processes."""
    if processes == 1:
        return [{}]
    group = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
    return [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def run_job(data: Path, output: Path, processes: int = 1, code: int = 0, **options) -> list[dict]:
    """
    Run a job in fresh processes and return the results of each.

    Args:
        data (`Path`): Folder in the layout of MaSS13K.
        output (`Path`): Output folder.
        processes (`int`): Number of training processes.
        code (`int`): Expected exit code.
        options: `evaluate`, `kill_at` (a step), `repeatable` (the same points for every mask), `uniform_labels` (one
            per process), or training arguments.
    """
    output.mkdir(parents=True, exist_ok=True)
    CONTEXT.set_forkserver_preload([__name__])
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}):
        started = [
            CONTEXT.Process(target=job, args=(data, output, environment, options))
            for environment in process_environments(processes)
        ]
        for process in started:
            process.start()
    try:
        for process in started:
            process.join(TIMEOUT)
    finally:
        for process in started:
            process.kill()
            process.join()
    logs = "\n".join(path.read_text() for path in sorted(output.glob("log_*.txt")))
    assert [process.exitcode for process in started] == [code] * processes, logs
    return [json.loads(path.read_text()) for path in sorted(output.glob("result_*.json"))]
