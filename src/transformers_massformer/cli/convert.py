"""massformer convert: the authors' checkpoints to transformers folders."""

from pathlib import Path
from typing import Annotated

import typer
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from ..conversion import SEMASK_VARIANTS, VARIANTS, convert_massformer_checkpoint, convert_semask_checkpoint
from .console import console, fail


def convert(
    checkpoint: Annotated[Path, typer.Option(help="The authors' file, .pth or .safetensors.")],
    variant: Annotated[str, typer.Option(help=f"Which model it is: {', '.join([*VARIANTS, *SEMASK_VARIANTS])}.")],
    output: Annotated[Path, typer.Option(help="The folder to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that the folder holds.")] = False,
    semantic_attention: Annotated[
        str | None,
        typer.Option(
            help="SeMask: window or global for each stage, such as window,window,global,global, which no checkpoint "
            "tells; by default the release's rule for SeMask-FPN."
        ),
    ] = None,
):
    """Converts a checkpoint of the MaSSFormer or SeMask authors to a folder that from_pretrained loads.

    Nothing in the file is executed.
    """
    logging.disable_progress_bar()
    try:
        if variant in SEMASK_VARIANTS:
            stages = None if semantic_attention is None else semantic_attention.split(",")
            convert_semask_checkpoint(checkpoint, variant, output, overwrite, stages)
        elif semantic_attention is not None:
            raise ValueError(f"--semantic-attention is for SeMask; {variant} has no semantic layers.")
        else:
            convert_massformer_checkpoint(checkpoint, variant, output, overwrite)
    except StrictDataclassError as error:
        # A configuration that cannot be.
        fail(error.__cause__ or error)
    except (OSError, ValueError) as error:
        fail(error)
    console.print(f"{output} holds the model, its configuration and its image processor.", markup=False)
