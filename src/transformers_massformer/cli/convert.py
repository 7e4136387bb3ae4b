"""massformer convert: convert the authors' checkpoints to transformers folders."""

from pathlib import Path
from typing import Annotated

import typer

from .console import console, fail


def convert(
    checkpoint: Annotated[Path, typer.Option(help="The authors' file, .pth or .safetensors.")],
    variant: Annotated[
        str,
        typer.Option(
            help="Variant of the model: r50, r18-lite, swin-t, swin-b; semask-swin-t, semask-swin-s, semask-swin-b, "
            "semask-swin-l."
        ),
    ],
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that the folder holds.")] = False,
    semantic_attention: Annotated[
        str | None,
        typer.Option(
            help="SeMask only: window or global for each stage, such as window,window,global,global. Checkpoints do "
            "not store it. Default: the release's rule for SeMask-FPN."
        ),
    ] = None,
):
    """Convert a checkpoint of the MaSSFormer or SeMask authors to a folder that from_pretrained loads.

    Nothing in the file is executed.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers.utils import logging

    from ..conversion import SEMASK_VARIANTS, convert_massformer_checkpoint, convert_semask_checkpoint

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
        # An invalid configuration.
        fail(error.__cause__ or error)
    except (OSError, ValueError) as error:
        fail(error)
    console.print(f"Wrote model, configuration and image processor to {output}", markup=False)
