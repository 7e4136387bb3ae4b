"""massformer demo: a web page on which photographs are segmented."""

import signal
import threading
from pathlib import Path
from types import ModuleType
from typing import Annotated

import torch
import typer
from transformers.utils import logging

from ..inference.segmenter import Segmenter
from .console import console, fail
from .segment import DType


CHECKPOINT = Path("hub") / "massformer-demo"
# In a clone, this file is in src/transformers_massformer/cli.
CLONE = Path(__file__).parents[3]


def demo_page() -> ModuleType:
    """
    The page, whose libraries are needed nowhere else.

    Raises:
        ImportError: If Gradio is not installed.
    """
    try:
        from ..demo import page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ImportError("The web page needs Gradio: pip install 'transformers-massformer[demo]'") from error
    return page


def demo_checkpoint() -> Path:
    """
    The demo checkpoint, in the current folder or in the clone that this package is installed from.

    Raises:
        FileNotFoundError: If it is in neither.
    """
    for folder in (Path.cwd(), CLONE):
        if (folder / CHECKPOINT).is_dir():
            return folder / CHECKPOINT
    raise FileNotFoundError(
        f"There is no {CHECKPOINT} here. Start in a clone of the repository, which has it, or name another model with "
        "--model."
    )


def demo(
    model: Annotated[
        str | None, typer.Option(help="Folder (or Hub name) of the model; by default hub/massformer-demo.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 7860,
    max_megapixels: Annotated[float, typer.Option(help="Larger photographs are refused.")] = 50,
    timeout: Annotated[float, typer.Option(help="Seconds of computing for a photograph.")] = 600,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the fastest.")] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the weights.")] = DType.float32,
    tile: Annotated[int | None, typer.Option(help="Segment in tiles of so many pixels; by default whole.")] = None,
):
    """Serves a web page on which photographs are segmented, cut out and blurred, until Ctrl-C."""
    logging.disable_progress_bar()
    try:
        page = demo_page()
        name = str(demo_checkpoint()) if model is None else model
        segmenter = Segmenter(name, device, getattr(torch, dtype), tile, mattes=True)
        # What a container is ended with ends as Ctrl-C does, and leaves no files.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with page.serving(segmenter, Path(name).name, host, port, max_megapixels, timeout) as address:
            console.print(f"{address} shows {name} on {segmenter.device} in {dtype}. Ctrl-C ends it.", markup=False)
            threading.Event().wait()
    except (ImportError, OSError, ValueError, RuntimeError, AssertionError) as error:
        fail(error)
    except KeyboardInterrupt:
        console.print("ended")
