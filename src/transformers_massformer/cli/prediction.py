"""Prediction options shared by the commands that segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer


if TYPE_CHECKING:
    import torch

    from ..inference.predictor import PredictionOptions, Predictor


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
    if dtype != torch.float32:
        raise ValueError(f"{model} has a fixed precision; leave out --dtype, or export the model again.")
    return OnnxPredictor(model, None if device is None else str(device), options)
