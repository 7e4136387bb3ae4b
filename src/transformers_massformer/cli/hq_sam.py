"""massformer train-hq-sam and evaluate-hq-sam: HQ-SAM on any folder of images and exact masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import console, fail, fail_interrupted, print_table, progress_bar
from .options import LENGTHS, Device, DType, Precision, given_names


if TYPE_CHECKING:
    from ..hq_sam import HQSamTrainingArguments


ObjectFolder = Annotated[
    Path, typer.Option(help="Data in MaSS13K's layout, or folders of images (im) and binary masks (gt).")
]


def parse_arguments(given: list[str]) -> HQSamTrainingArguments:
    """
    Parse the options of transformers.TrainingArguments and HQ-SAM's own.

    Raises:
        ValueError: If an option is unknown, or steps and epochs are both given.
    """
    from transformers import HfArgumentParser

    from ..hq_sam import HQSamTrainingArguments

    groups: Any = (HQSamTrainingArguments,)
    parser = HfArgumentParser(groups, prog="massformer train-hq-sam", allow_abbrev=False)
    parsed: Any = parser.parse_args_into_dataclasses(given, return_remaining_strings=True, look_for_args_file=False)
    args, rest = parsed
    if rest:
        raise ValueError(f"Unknown option {', '.join(rest)}; see transformers.TrainingArguments.")
    if given_names(given) >= set(LENGTHS):
        raise ValueError(f"--{' and --'.join(LENGTHS)} both set the length of the training; leave out one.")
    return args


def train_hq_sam(
    context: typer.Context,
    data: ObjectFolder,
    model: Annotated[str, typer.Option(help="Folder or Hub name of a SamHQ model.")],
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder for checkpoints and the trained model.")],
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
):
    """
    Train HQ-SAM's additions to a frozen SAM on objects with exact masks.

    The same command resumes after an interruption. Further options: those of transformers.TrainingArguments,
    --drop_after and --drop_factor.
    """
    import torch
    from transformers import AutoProcessor, SamHQModel, set_seed

    from ..hq_sam import HQSamTrainer, ObjectSet, find_objects
    from ..inference.memory import out_of_memory
    from ..training.checkpoints import last_checkpoint

    try:
        args = parse_arguments([*context.args, "--output_dir", str(output)])
        pairs, binary = find_objects(data, split)
        set_seed(args.seed)
        network = SamHQModel.from_pretrained(model, dtype=torch.float32)
        processor = AutoProcessor.from_pretrained(model)
        trainer = HQSamTrainer(
            network,
            args,
            ObjectSet(pairs, binary, network, processor.image_processor, args.seed),
            processor,
        )
        checkpoint = last_checkpoint(output, args.world_size)
        with out_of_memory("The training does not fit into memory. Lower --per_device_train_batch_size."):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        trainer.save_model()
        trainer.end()
        console.print(f"Wrote model and processor to {output}", markup=False)
    except (OSError, ValueError, MemoryError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail_interrupted("Run the same command again to resume from the last checkpoint.")


def evaluate_hq_sam(
    data: ObjectFolder,
    model: Annotated[str, typer.Option(help="Folder or Hub name of a SAM or HQ-SAM model.")],
    output: Annotated[Path, typer.Option(dir_okay=False, help="JSON file for the scores.")],
    split: Annotated[str, typer.Option(help="Split to evaluate on.")] = "validation",
    hq_token_only: Annotated[
        bool, typer.Option("--hq-token-only", help="Score HQ-SAM's own masks instead of their sum with SAM's.")
    ] = False,
    device: Device = None,
    dtype: Precision = DType.float32,
    seed: Annotated[int, typer.Option(help="Random seed of noise and points.")] = 0,
):
    """Measure mIoU and mBIoU (2 % band) for boxes, noisy boxes, coarse masks and points, at the photographs' size."""
    import torch
    from transformers.utils import logging

    from ..hq_sam import evaluate_prompts, find_objects
    from ..hq_sam.evaluation import mean_scores
    from ..inference.loading import default_device
    from ..labeling import SamSegmenter
    from ..utils.json_files import write_json

    logging.disable_progress_bar()
    try:
        pairs, binary = find_objects(data, split)
        segmenter = SamSegmenter.load(model, device or default_device(), getattr(torch, dtype))
        found = evaluate_prompts(segmenter, pairs, binary, hq_token_only=hq_token_only, seed=seed)
        with progress_bar() as progress:
            scores = list(progress.track(found, total=len(pairs), description="evaluating"))
    except (OSError, ValueError, MemoryError) as error:
        fail(error)
    means = mean_scores(scores)
    write_json({"model": model, "photographs": len(pairs), "prompts": means}, output)
    rows = [["prompt", "mIoU", "mBIoU"]]
    rows += [[name, f"{100 * each['miou']:.2f}", f"{100 * each['mbiou']:.2f}"] for name, each in means.items()]
    print_table(rows)
