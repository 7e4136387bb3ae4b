"""
Trains a tiny model with `MaSSFormerTrainer` and writes what happened as JSON, one file per process. Run by tests,
alone or under `python -m torch.distributed.run`: python training_job.py DATA OUTPUT [name=value ...]
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback, set_seed

from support.tiny import RepeatablePoints, tiny_model
from transformers_massformer import MaSSFormerImageProcessor
from transformers_massformer.data.layout import find_splits
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.data.transforms import TrainingTransform
from transformers_massformer.training import MaSSFormerTrainer, MaSSFormerTrainingArguments
from transformers_massformer.training.checkpoints import last_checkpoint
from transformers_massformer.training.session import items, read_pairs


ARGUMENTS = {
    "use_cpu": True,
    "disable_tqdm": True,
    "report_to": "none",
    "logging_steps": 1,
    "max_steps": 5,
    "per_device_train_batch_size": 2,
    "dataloader_num_workers": 0,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
}


class Killer(TrainerCallback):
    """Ends this process without warning."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class GradientRecorder(TrainerCallback):
    """Keeps the gradients of every step, as the optimiser sees them."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.gradients.append(torch.cat([p.grad.flatten() for p in parameters]).clone())


def native_threads() -> list[str]:
    """Names of the threads of this process, those that Python does not know included."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def main():
    data, output = sys.argv[1], Path(sys.argv[2])
    options = {name: json.loads(value) for name, _, value in (text.partition("=") for text in sys.argv[3:])}
    repeatable, evaluate = options.pop("repeatable", False), options.pop("evaluate", False)
    label, kill_at = options.pop("uniform_label", None), options.pop("kill_at", None)
    if repeatable:
        torch.rand = RepeatablePoints()
    args = MaSSFormerTrainingArguments(output_dir=str(output), **{**ARGUMENTS, **options})
    set_seed(args.seed)
    transform = TrainingTransform(crop_size=64, short_sides=(96, 128))
    splits = find_splits(data)
    dataset = TrainingSet(items(read_pairs(splits, "train")), transform, seed=3)
    if label is not None:
        # This process sees one class, or only ignored pixels.
        values = label[args.process_index]
        original = TrainingSet.__getitem__

        def uniform(self, index):
            sample = original(self, index)
            if values is not None:
                sample["labels"].fill_(values)
            return sample

        TrainingSet.__getitem__ = uniform
    recorder = GradientRecorder()
    trainer = MaSSFormerTrainer(
        model=tiny_model(),
        args=args,
        train_dataset=dataset,
        eval_dataset=items(read_pairs(splits, "validation")),
        processing_class=MaSSFormerImageProcessor(),
        callbacks=[recorder] if kill_at is None else [recorder, Killer(kill_at)],
    )
    checkpoint = last_checkpoint(output, args.world_size)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    metrics = trainer.evaluate() if evaluate else {}
    rank = int(os.environ.get("RANK", 0))
    torch.save(recorder.gradients, output / f"gradients_{rank}.pt")
    trainer.end()
    result = {"log": trainer.state.log_history, "metrics": metrics, "threads": native_threads()}
    (output / f"result_{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
