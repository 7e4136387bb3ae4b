"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.models import OptionInfo

from .console import console
from .contradictions import was_given


if TYPE_CHECKING:
    import torch

    from ..data.layout import Split
    from ..inference.predictor import PredictionOptions, Predictor


DEMO_CHECKPOINT = "massformer-photo"
# Arguments of `transformers.TrainingArguments` of which one sets the length of a training.
LENGTHS = ("max_steps", "num_train_epochs")


class DType(StrEnum):
    """Precisions of a model's weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def demo_checkpoint() -> Path:
    """
    Return the folder of the demo checkpoint that the package contains.

    Raises:
        FileNotFoundError: If it is missing, as in a clone whose symbolic links were not created.
    """
    folder = Path(str(files("transformers_massformer") / "demo" / DEMO_CHECKPOINT)).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"The demo checkpoint is missing ({folder}). Name another model with --model.")
    return folder


def find_model(name: str | None) -> str | None:
    """Return the demo checkpoint's folder for its name, unless a folder here has this name; keep any other value."""
    if name is None or name.rstrip("/") != DEMO_CHECKPOINT or (Path(name) / "config.json").exists():
        return name
    try:
        return str(demo_checkpoint())
    except FileNotFoundError as error:
        raise typer.BadParameter(str(error)) from error


def distinct(names: list[str] | None) -> list[str] | None:
    """Return names that an option gives, which must differ."""
    twice = sorted({name for name in names or () if (names or []).count(name) > 1})
    if twice:
        raise typer.BadParameter(f"{', '.join(twice)} is given twice; each name belongs to one class.")
    return names


def folder_name(name: str) -> str:
    """Return the path or URI of a folder for results, which must not be a file."""
    if Path(name).is_file():
        raise typer.BadParameter(f"{name} is a file; name a folder.")
    return name


def model_option(text: str) -> OptionInfo:
    """Return a `--model` option, which also takes the name of the demo checkpoint."""
    return typer.Option(help=text, callback=find_model)


Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps. Default: the fastest one available.")]
Precision = Annotated[DType, typer.Option("--dtype", help="Precision of the weights.")]
Photographs = Annotated[
    list[str], typer.Argument(help="Photographs, folders of photographs, or glob patterns in quotes.")
]
MaxMegapixels = Annotated[
    float | None,
    typer.Option(help="Largest size of a photograph in millions of pixels. Default: 179, Pillow's safe limit."),
]
AllowTruncated = Annotated[
    bool, typer.Option("--allow-truncated", help="Read photographs that are cut off; what is missing is blank.")
]
DataFolder = Annotated[Path, typer.Option(help="Folder of MaSS13K, or of data in its layout.")]
DataArgument = Annotated[Path, typer.Argument(help="Folder of MaSS13K, or of data in its layout.")]
MaskValues = Annotated[
    str | None,
    typer.Option(
        help="Classes of the stored values of label maps, such as 0:background,255:object; `ignore` for no class."
    ),
]
AddClass = Annotated[
    list[str] | None,
    typer.Option(
        callback=distinct,
        help="Name of an additional class of the data; ids follow those of its other classes. Repeatable.",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        help="Name of a class of the data, in the order of ids. Repeatable. Or a file such as classes.txt, or a "
        "model's folder. Default: classes.txt or id2label.json beside the data, else MaSS13K's classes."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Make existing results again, also those that were changed or are unknown.")
]
# How photographs pass through a model.
Tile = Annotated[
    int | None,
    typer.Option(
        help="Segment in overlapping tiles of this many pixels, at native size. Default: the whole photograph."
    ),
]
Overlap = Annotated[
    int | None, typer.Option(help="Overlap of neighbouring tiles in pixels. Default: an eighth of a tile.")
]
Scales = Annotated[str, typer.Option(help="Average over input scales, such as 0.5,0.75,1,1.25,1.5,1.75.")]
Flip = Annotated[bool, typer.Option("--flip", help="Average with the mirrored photograph.")]
NativeInput = Annotated[
    bool, typer.Option("--native-input", help="Keep the image processor from resizing the photograph.")
]
PeerPostprocess = Annotated[
    bool, typer.Option("--peer-postprocess", help="Read label maps with the model's own image processor.")
]
Inference = Annotated[str, typer.Option(help="semantic: sum over queries. general: best query of each pixel.")]


def choose_photos(arguments: list[str], output: Path) -> list[tuple[Path, Path]]:
    """
    Return the photographs that arguments name, see [`find_photos`], and print what was passed over.

    Raises:
        FileNotFoundError: If an argument names no photographs.
        ValueError: If a folder is also the output.
    """
    from ..photo_files import find_photos

    search = find_photos(arguments, output)
    if search.passed_over:
        console.print(search.describe(), markup=False)
    return search.photos


def option_names(names: Iterable[str]) -> str:
    """Format names of Python arguments as the command's options."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def given_names(arguments: Iterable[str]) -> set[str]:
    """Return the names of the Python arguments that options such as `--max-steps=2` on a command line set."""
    options = (text.partition("=")[0] for text in arguments if text.startswith("--"))
    return {option.removeprefix("--").replace("-", "_") for option in options}


def parse_size(text: str) -> tuple[int, int]:
    """Parse "4096x3072" to (4096, 3072), width first."""
    with contextlib.suppress(ValueError):
        width, height = (int(side) for side in text.split("x"))
        if 16 <= width <= 16384 and 16 <= height <= 16384:
            return width, height
    raise ValueError(
        f"{text!r} is not a size. Give WIDTHxHEIGHT, such as 4096x3072, with sides of 16 to 16384 pixels."
    )


def choose_splits(directory: Path, names: list[str]) -> dict[str, Split]:
    """Return the named splits of a data set, or all of them if no name is given."""
    from ..data.layout import choose_split, find_splits, full_split_name

    splits = find_splits(directory)
    chosen = {full_split_name(name): choose_split(splits, name) for name in names}
    return chosen or splits


def read_prediction_options(
    tile: int | None,
    overlap: int | None,
    scales: str,
    flip: bool,
    native_input: bool,
    peer_postprocess: bool,
    inference: str,
) -> PredictionOptions:
    """
    Build the [`PredictionOptions`] of a command line.

    Raises:
        ValueError: If they are malformed or contradict each other.
    """
    from ..inference.predictor import PredictionOptions

    try:
        sizes = tuple(float(scale) for scale in scales.split(","))
    except ValueError:
        raise ValueError(f"--scales takes numbers such as 0.5,1,1.5, got {scales!r}.") from None
    return PredictionOptions(native_input, peer_postprocess, tile, overlap, sizes, flip, inference)


def load_predictor(
    model: str, device: str | torch.device | None, dtype: torch.dtype, options: PredictionOptions
) -> Predictor:
    """
    Load the model of a folder, or an exported one.

    Args:
        model (`str`): A folder, Hub name, or ONNX file.
        device (`str` or `torch.device`, *optional*): By default the fastest one available.
        dtype (`torch.dtype`): Type of the weights.
        options ([`PredictionOptions`]): How photographs pass through it.

    Raises:
        FileNotFoundError: If the model or its weights are missing.
        MissingExtraError: If the model needs ONNX Runtime, which is not installed.
        ValueError: If the options do not suit the model.
    """
    import torch

    from ..export import OnnxPredictor, is_onnx
    from ..inference.loading import default_device
    from ..inference.predictor import ModelPredictor

    if not is_onnx(model):
        return ModelPredictor.load(model, device or default_device(), dtype, options)
    if dtype != torch.float32 or was_given("dtype"):
        raise ValueError(f"{model} has a fixed precision; leave out --dtype, or export the model again.")
    return OnnxPredictor(model, None if device is None else str(device), options)
