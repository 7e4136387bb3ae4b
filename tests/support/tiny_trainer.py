"""`MaSSFormerTrainer` on a tiny model and tiny data."""

from pathlib import Path

from support.tiny import tiny_model
from support.tiny_data import write_pair
from transformers_massformer import MaSSFormerImageProcessor
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.data.transforms import TrainingTransform
from transformers_massformer.training import MaSSFormerTrainer, MaSSFormerTrainingArguments


def write_data(folder: Path, num_eval: int = 3) -> Path:
    """Write six training photos and some validation photos of different sizes, with label maps."""
    for index in range(6):
        write_pair(folder, "train", f"train{index}", index)
    for index in range(num_eval):
        write_pair(folder, "val", f"val{index}", 100 + index, size=(96 + 32 * index, 80))
    return folder


def items_of(data: Path, split: str) -> list[dict[str, Path]]:
    """Return the files of a split as items of a data set."""
    return [
        {"image": path, "label": data / "annotations" / split / f"{path.stem}.png"}
        for path in sorted((data / "images" / split).iterdir())
    ]


def training_set(data: Path, kind: type[TrainingSet] = TrainingSet) -> TrainingSet:
    """Return the training crops of the data."""
    return kind(items_of(data, "train"), TrainingTransform(crop_size=64, short_sides=(72, 96)), seed=3)


def arguments(folder: Path, **overrides) -> MaSSFormerTrainingArguments:
    """Return arguments of a short training on the CPU, which neither evaluates nor saves."""
    fields = {
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "logging_steps": 1,
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "dataloader_num_workers": 0,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
    }
    return MaSSFormerTrainingArguments(output_dir=str(folder), **{**fields, **overrides})


def trainer_for(data: Path, folder: Path, model=None, kind=MaSSFormerTrainer, **overrides) -> MaSSFormerTrainer:
    """Return a trainer of a tiny model."""
    return kind(
        model=model or tiny_model(),
        args=arguments(folder, **overrides),
        train_dataset=training_set(data),
        eval_dataset=items_of(data, "val"),
        processing_class=MaSSFormerImageProcessor(),
    )


def losses(trainer: MaSSFormerTrainer) -> list[float]:
    """Return the logged losses."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
