"""massformer train: training and fine-tuning."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser

from ..inference.memory import out_of_memory
from ..training.arguments import DataArguments, MaSSFormerTrainingArguments, ModelArguments
from ..training.session import TrainingSession
from .console import console, fail


OUT_OF_MEMORY_REMEDY = (
    "The training does not fit into memory. Lower --per_device_train_batch_size (--total_train_batch_size keeps the "
    "images per step), add --gradient_checkpointing or --bf16, or take smaller crops (--crop_size)."
)


def read_recipe(path: Path | None) -> dict[str, Any]:
    """
    The defaults that a recipe sets.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no mapping.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise FileNotFoundError(f"There is no recipe at {path}.")
    try:
        recipe = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} holds no options by name.")
    return recipe


def option_parser() -> HfArgumentParser:
    """All options but those of the command itself."""
    groups: Any = (ModelArguments, DataArguments, MaSSFormerTrainingArguments)
    return HfArgumentParser(groups, prog="massformer train", allow_abbrev=False)


def list_options(wanted: bool):
    """Prints them, and that is all."""
    if wanted:
        option_parser().print_help()
        raise typer.Exit


def parse_arguments(recipe: dict[str, Any], given: list[str], name: str) -> tuple[Any, ...]:
    """
    Options of the command line over those of a recipe over the defaults: [`ModelArguments`], [`DataArguments`] and
    [`MaSSFormerTrainingArguments`].

    Raises:
        ValueError: If the recipe or the command line has an option that there is not.
    """
    parser = option_parser()
    known = {action.dest for action in parser._actions}
    unknown = sorted(recipe.keys() - known)
    if unknown:
        raise ValueError(f"The recipe {name} has options that there are not: {', '.join(unknown)}.")
    parser.set_defaults(**recipe)
    for action in parser._actions:
        if action.dest in recipe:
            action.required = False
    parsed: Any = parser.parse_args_into_dataclasses(given, return_remaining_strings=True, look_for_args_file=False)
    *arguments, rest = parsed
    unknown = [text for text in rest if text.startswith("--")] or rest
    if unknown:
        raise ValueError(f"There is no option {', '.join(unknown)}; --help-all lists them.")
    return tuple(arguments)


def in_few_words(error: Exception) -> str:
    """An error's own message; those from workers carry tracebacks."""
    text = str(error)
    match = re.search(
        rf"Caught {type(error).__name__} in DataLoader worker.*\n{type(error).__name__}: (.*)", text, re.S
    )
    return match[1].strip() if match else text


def train(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="Folder for checkpoints and the trained model.")],
    data: Annotated[Path | None, typer.Option(help="Folder of MaSS13K, or of data in its layout.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="r50, r18-lite, swin-t, swin-b, semask-swin-t (-s, -b, -l), or the folder of a model."),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="YAML file with options, such as those in src/transformers_massformer/recipes.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Forget what is in the folder and begin anew.")
    ] = False,
    help_all: Annotated[
        bool, typer.Option("--help-all", help="List all other options.", callback=list_options, is_eager=True)
    ] = False,
):
    """
    Trains or fine-tunes a model on the training split of a folder in the layout of MaSS13K, and keeps the checkpoint
    with the best Boundary IoU on the validation split. The same command goes on after an interruption.

    Further options, such as --learning_rate 1e-4 --max_steps 20000 --bf16, are those of transformers.TrainingArguments
    and the package's own; --help-all lists them. Several GPUs: accelerate launch -m transformers_massformer.cli train
    """
    given = [*context.args, "--output_dir", str(output)]
    given += [] if data is None else ["--data", str(data)]
    given += [] if model is None else ["--model", model]
    try:
        arguments = parse_arguments(read_recipe(recipe), given, str(recipe))
        session = TrainingSession(*arguments, overwrite=overwrite)
        with out_of_memory(OUT_OF_MEMORY_REMEDY):
            metrics = session.run()
        if session.is_main_process:
            for title, name in (("mIoU", "mean_iou"), ("BIoU", "mean_boundary_iou"), ("BF1", "mean_bf1")):
                if f"eval_{name}" in metrics:
                    console.print(f"{title} {metrics[f'eval_{name}']:.4f}")
            console.print(f"Model, processor and card are in {output}", markup=False)
        session.end()
    except StrictDataclassError as error:
        # A configuration that cannot be.
        fail(error.__cause__ or error)
    except (OSError, ValueError, MemoryError) as error:
        fail(in_few_words(error))
    except KeyboardInterrupt:
        fail("interrupted. The same command goes on from the last checkpoint.", code=130)
