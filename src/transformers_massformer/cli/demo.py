"""massformer demo: serve a web page that segments photographs."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from .console import console, fail
from .options import DEMO_CHECKPOINT, Device, DType, Precision, Tile, model_option


# What Pillow accepts without being told.
PILLOWS_MEGAPIXELS = 178


def demo(
    model: Annotated[str, model_option("Model folder or Hub name. Default: the demo checkpoint.")] = DEMO_CHECKPOINT,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 admits other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 7860,
    max_megapixels: Annotated[float, typer.Option(help="Refuse larger photographs.")] = 50,
    timeout: Annotated[float, typer.Option(help="Limit of computing time per photograph, in seconds.")] = 600,
    device: Device = None,
    dtype: Precision = DType.float32,
    tile: Tile = None,
):
    """Serve a web page that segments, cuts out and blurs photographs, until Ctrl-C."""
    import torch
    from transformers.utils import logging

    from ..images import accept_photos
    from ..inference.segmenter import Segmenter
    from ..utils.extras import require

    logging.disable_progress_bar()
    try:
        require("gradio", "demo", "The web page")
        if max_megapixels > PILLOWS_MEGAPIXELS:
            accept_photos(max_megapixels)
        from ..demo import page

        segmenter = Segmenter(model, device, getattr(torch, dtype), tile, mattes=True)
        # Containers are stopped with SIGTERM: end as at Ctrl-C, without leaving files behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with page.serving(segmenter, Path(model).name, host, port, max_megapixels, timeout) as address:
            console.print(
                f"{address} shows {model} on {segmenter.device} in {dtype}. Press Ctrl-C to stop.", markup=False
            )
            threading.Event().wait()
    except (OSError, ValueError, RuntimeError, AssertionError) as error:
        fail(error)
    except KeyboardInterrupt:
        console.print("stopped")
