"""massformer train: train or fine-tune a model."""

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import console, fail, fail_interrupted
from .options import LENGTHS, AllowTruncated, MaxMegapixels, given_names, model_option


if TYPE_CHECKING:
    from transformers import HfArgumentParser


OUT_OF_MEMORY_REMEDY = (
    "The training does not fit into memory. Lower --per_device_train_batch_size (--total_train_batch_size keeps the "
    "images per step), add --gradient_checkpointing or --bf16, or use smaller crops (--crop_size)."
)


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package, such as `"finetune-24gb"` and `"benchmark/eomt-l"`."""
    folder = Path(str(files("transformers_massformer") / "recipes"))
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def find_recipe(recipe: str) -> Path:
    """
    Return the file of a recipe.

    Args:
        recipe (`str`): Path of a YAML file, or the name of a recipe in the package.

    Raises:
        FileNotFoundError: If there is neither. The message lists the names.
    """
    if Path(recipe).is_file():
        return Path(recipe)
    names = recipe_names()
    if recipe not in names:
        raise FileNotFoundError(
            f"There is no recipe {recipe}. Give a YAML file or one of these names: {', '.join(names)}."
        )
    return Path(str(files("transformers_massformer") / "recipes" / f"{recipe}.yaml"))


def read_recipe(path: Path) -> dict[str, Any]:
    """
    Read the options of a recipe.

    Raises:
        ValueError: If the file does not map options to values.
    """
    import yaml

    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeError) as error:
        raise ValueError(f"{path} is not valid YAML in UTF-8: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} does not map options to values.")
    return recipe


def option_parser() -> "HfArgumentParser":
    """Return the parser of all options but the command's own."""
    from transformers import HfArgumentParser

    from ..training.arguments import DataArguments, MaSSFormerTrainingArguments, ModelArguments

    groups: Any = (ModelArguments, DataArguments, MaSSFormerTrainingArguments)
    return HfArgumentParser(groups, prog="massformer train", allow_abbrev=False)


def list_options(wanted: bool):
    """Print the other options and end the command."""
    if wanted:
        option_parser().print_help()
        raise typer.Exit


def parse_arguments(recipe: dict[str, Any], given: list[str], name: str) -> tuple[Any, ...]:
    """
    Parse [`ModelArguments`], [`DataArguments`] and [`MaSSFormerTrainingArguments`]. The command line overrides the
    recipe, which overrides the defaults.

    Raises:
        ValueError: If the recipe or the command line contains an unknown option, or a list is given twice.
    """
    parser = option_parser()
    known = {action.dest for action in parser._actions}
    unknown = sorted(recipe.keys() - known)
    if unknown:
        raise ValueError(f"The recipe {name} contains unknown options: {', '.join(unknown)}.")
    # Steps on the command line replace a recipe's epochs, and the other way round.
    if any(name in given_names(given) for name in LENGTHS):
        recipe = {name: value for name, value in recipe.items() if name not in LENGTHS}
    parser.set_defaults(**recipe)
    for action in parser._actions:
        if action.dest in recipe:
            action.required = False
        # The parser would keep the last list alone.
        if action.nargs == "+" and sum(text.split("=")[0] in action.option_strings for text in given) > 1:
            raise ValueError(f"{action.option_strings[0]} is given twice. List all values after one.")
    parsed: Any = parser.parse_args_into_dataclasses(given, return_remaining_strings=True, look_for_args_file=False)
    *arguments, rest = parsed
    unknown = [text for text in rest if text.startswith("--")] or rest
    if unknown:
        raise ValueError(f"Unknown option {', '.join(unknown)}; --help-all lists all options.")
    return tuple(arguments)


def short_message(error: Exception) -> str:
    """Return an error's own message, without the traceback that errors from workers carry."""
    text = str(error)
    match = re.search(
        rf"Caught {type(error).__name__} in DataLoader worker.*\n{type(error).__name__}: (.*)", text, re.S
    )
    return match[1].strip() if match else text


def train(
    context: typer.Context,
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder for checkpoints and the trained model.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder in the layout of MaSS13K, or a YAML file that mixes several.")
    ] = None,
    model: Annotated[
        str | None,
        model_option(
            "r50, r18-lite, swin-t, swin-b, semask-swin-t (-s, -b, -l), massformer-photo, or a model folder."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe of the package, such as finetune-24gb, or a YAML file with options."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard an earlier training in the folder.")] = False,
    max_megapixels: MaxMegapixels = None,
    allow_truncated: AllowTruncated = False,
    help_all: Annotated[
        bool, typer.Option("--help-all", help="List all other options.", callback=list_options, is_eager=True)
    ] = False,
):
    """
    Train or fine-tune a model on MaSS13K or data in its layout.

    The checkpoint with the best Boundary IoU on the validation split is kept. The same command resumes after an
    interruption.

    Further options, such as --learning_rate 1e-4 --max_steps 20000 --bf16, are those of transformers.TrainingArguments
    and the package's own; --help-all lists them. Several GPUs: accelerate launch -m transformers_massformer.cli train
    """
    from huggingface_hub.errors import StrictDataclassError

    from ..images import accept_photos
    from ..inference.memory import out_of_memory
    from ..training.session import TrainingSession

    given = [*context.args, "--output_dir", str(output)]
    given += [] if data is None else ["--data", str(data)]
    given += [] if model is None else ["--model", model]
    try:
        accept_photos(max_megapixels, allow_truncated)
        defaults = {} if recipe is None else read_recipe(find_recipe(recipe))
        arguments = parse_arguments(defaults, given, str(recipe))
        session = TrainingSession(*arguments, overwrite=overwrite)
        with out_of_memory(OUT_OF_MEMORY_REMEDY):
            metrics = session.run()
        if session.is_main_process:
            for title, name in (("mIoU", "mean_iou"), ("BIoU", "mean_boundary_iou"), ("BF1", "mean_bf1")):
                if f"eval_{name}" in metrics:
                    console.print(f"{title} {metrics[f'eval_{name}']:.4f}")
            console.print(f"Wrote model, processor and card to {output}", markup=False)
        session.end()
    except StrictDataclassError as error:
        # An invalid configuration.
        fail(error.__cause__ or error)
    except (OSError, ValueError, MemoryError) as error:
        fail(short_message(error))
    except KeyboardInterrupt:
        fail_interrupted("Run the same command again to resume from the last checkpoint.")
