"""massformer train-hq-sam and evaluate-hq-sam: HQ-SAM on any folder of images and exact masks."""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import AutoProcessor, HfArgumentParser, SamHQModel, set_seed
from transformers.utils import logging

from ..hq_sam import HQSamTrainer, HQSamTrainingArguments, ObjectSet, evaluate_prompts, find_objects
from ..hq_sam.evaluation import mean_scores
from ..inference.loading import default_device
from ..inference.memory import out_of_memory
from ..labeling import SamSegmenter
from ..training.checkpoints import last_checkpoint
from ..utils.files import written_whole
from .console import console, fail, print_table, progress_bar
from .segment import DType


def parse_arguments(given: list[str]) -> HQSamTrainingArguments:
    """
    Raises:
        ValueError: If there is no such option.
    """
    groups: Any = (HQSamTrainingArguments,)
    parser = HfArgumentParser(groups, prog="massformer train-hq-sam", allow_abbrev=False)
    parsed: Any = parser.parse_args_into_dataclasses(given, return_remaining_strings=True, look_for_args_file=False)
    args, rest = parsed
    if rest:
        raise ValueError(f"There is no option {', '.join(rest)}; those of transformers.TrainingArguments are known.")
    return args


def train_hq_sam(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Layout of MaSS13K, or folders of images (im) and binary masks (gt).")],
    model: Annotated[str, typer.Option(help="SamHQ: a folder or Hub name.")],
    output: Annotated[Path, typer.Option(help="Folder for checkpoints and the trained model.")],
    split: Annotated[str, typer.Option(help="Which split to train on.")] = "train",
):
    """
    Trains what HQ-SAM adds to SAM on objects with exact masks; SAM stays as it is. The same command goes on after an
    interruption. Further options are those of transformers.TrainingArguments, and --drop_after, --drop_factor.
    """
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
        console.print(f"Model and processor are in {output}", markup=False)
    except (OSError, ValueError, MemoryError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("interrupted. The same command goes on from the last checkpoint.", code=130)


def evaluate_hq_sam(
    data: Annotated[Path, typer.Option(help="Layout of MaSS13K, or folders of images (im) and binary masks (gt).")],
    model: Annotated[str, typer.Option(help="SAM or HQ-SAM: a folder or Hub name.")],
    output: Annotated[Path, typer.Option(help="JSON file for the scores.")],
    split: Annotated[str, typer.Option(help="Which split to evaluate on.")] = "validation",
    hq_token_only: Annotated[
        bool, typer.Option("--hq-token-only", help="HQ-SAM's own masks, not their sum with SAM's.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the fastest.")] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the weights.")] = DType.float32,
    seed: Annotated[int, typer.Option(help="Of noise and random points.")] = 0,
):
    """mIoU and mBIoU (2 % band) for boxes, noisy boxes, coarse masks and points, at the photographs' own size."""
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
    with written_whole(output) as partial:
        partial.write_text(json.dumps({"model": model, "photographs": len(pairs), "prompts": means}, indent=1) + "\n")
    rows = [["prompt", "mIoU", "mBIoU"]]
    rows += [[name, f"{100 * each['miou']:.2f}", f"{100 * each['mbiou']:.2f}"] for name, each in means.items()]
    print_table(rows)
