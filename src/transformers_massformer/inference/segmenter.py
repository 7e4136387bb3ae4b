"""Segmenting whole photographs, outside a pipeline."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from .loading import default_device
from .memory import PeakMemory
from .predictor import ModelPredictor, PredictionOptions, Predictor


@dataclass
class Segmentation:
    """
    A photograph's label map and what computing it took.

    Attributes:
        label_map (`np.ndarray` of shape `(height, width)`): uint8 class ids.
        seconds (`float`): From the photograph in memory to the label map in memory.
        peak_bytes (`int`, *optional*): Peak memory, see [`PeakMemory`].
        semantic_priors (`list[np.ndarray]`, *optional*): See [`Prediction`].
        mattes (`np.ndarray` of shape `(num_labels, height, width)`, *optional*): See [`matte_values`].
    """

    label_map: np.ndarray
    seconds: float
    peak_bytes: int | None
    semantic_priors: list[np.ndarray] | None = None
    mattes: np.ndarray | None = None


class Segmenter:
    """
    Segments photographs at their own size, one after the other, and measures time and memory.

    Args:
        model (`str`, `Path` or [`Predictor`]):
            A folder (or Hub name) with a model and its image processor; or a predictor, which then decides device,
            type and options.
        device (`str`, *optional*): By default the fastest one available.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Type of the weights and of most computations.
        tile (`int`, *optional*): See [`PredictionOptions`], which takes more options.
        semantic_priors (`bool`, *optional*, defaults to `False`):
            Whether to return the semantic maps of a SeMask backbone too. Photographs then stay whole.
        mattes (`bool`, *optional*, defaults to `False`): Whether to return a matte of each class too.

    Raises:
        FileNotFoundError: If the model or its weights are missing.
        ValueError: If the tile is smaller than 64 pixels, semantic priors are asked of a model without semantic
            layers, mattes of one without scores, or the model has more classes than a label map of 8 bits.
    """

    def __init__(
        self,
        model: str | Path | Predictor,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        tile: int | None = None,
        semantic_priors: bool = False,
        mattes: bool = False,
    ):
        if not isinstance(model, Predictor):
            options = PredictionOptions(tile=tile)
            model = ModelPredictor.load(model, device or default_device(), dtype, options)
        self.predictor, self.shows_priors, self.makes_mattes = model, semantic_priors, mattes
        if model.label_dtype != torch.uint8:
            raise ValueError(f"The model has {len(model.labels)} classes; label maps of 8 bits hold 256.")
        if semantic_priors and model.num_semantic_labels is None:
            raise ValueError("The model has no semantic layers whose maps could be shown; a SeMask backbone has.")
        if semantic_priors and (model.options.tile or model.options.averages or model.options.peer_postprocess):
            raise ValueError("Semantic priors come from one pass of a whole photograph; leave out tiles and scales.")
        if mattes:
            model.check_mattes()

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of their ids."""
        return self.predictor.labels

    @property
    def device(self) -> torch.device:
        return self.predictor.device

    @property
    def dtype(self) -> torch.dtype:
        return self.predictor.dtype

    def __call__(self, image: PIL.Image.Image) -> Segmentation:
        """
        Segment one photograph at its own size.

        Raises:
            MemoryError: If it does not fit into memory.
        """
        start = time.perf_counter()
        with PeakMemory(self.device) as memory:
            found = self.predictor.predict(image, self.makes_mattes, self.shows_priors)
        seconds = time.perf_counter() - start
        return Segmentation(found.label_map.numpy(), seconds, memory.bytes, found.semantic_priors, found.mattes)
