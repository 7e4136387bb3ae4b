"""Train a tiny model with `MaSSFormerTrainer` in fresh processes and collect what happened."""

import json
import os
import signal
from pathlib import Path

import torch
from transformers import TrainerCallback, set_seed

from support.processes import run_in_processes
from support.tiny import RepeatablePoints, tiny_model
from support.tiny_trainer import arguments, items_of, training_set
from transformers_massformer import MaSSFormerImageProcessor
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.training import MaSSFormerTrainer
from transformers_massformer.training.checkpoints import last_checkpoint


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


def job(data: Path, output: Path, options: dict):
    """Train in this process, and write results and gradients to the output folder."""
    rank = int(os.environ.get("RANK", 0))
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
    run_in_processes(job, (data, output, options), output, processes, code)
    return [json.loads(path.read_text()) for path in sorted(output.glob("result_*.json"))]
