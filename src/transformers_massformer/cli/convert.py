"""massformer convert: the authors' checkpoints to transformers folders."""

from pathlib import Path
from typing import Annotated

import typer
from transformers.utils import logging

from ..conversion import VARIANTS, convert_massformer_checkpoint
from .console import console, fail


def convert(
    checkpoint: Annotated[Path, typer.Option(help="The authors' file, .pth or .safetensors.")],
    variant: Annotated[str, typer.Option(help=f"Which model it is: {', '.join(VARIANTS)}.")],
    output: Annotated[Path, typer.Option(help="The folder to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that the folder holds.")] = False,
):
    """Converts a checkpoint of the MaSSFormer authors to a folder that from_pretrained loads.

    Nothing in the file is executed.
    """
    logging.disable_progress_bar()
    try:
        convert_massformer_checkpoint(checkpoint, variant, output, overwrite)
    except (OSError, ValueError) as error:
        fail(error)
    console.print(f"{output} holds the model, its configuration and its image processor.", markup=False)
