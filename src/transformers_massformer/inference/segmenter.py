"""Segmenting whole photographs, outside a pipeline."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch

from ..models.configuration_massformer import MaSSFormerConfig
from ..models.image_processing_massformer import MaSSFormerImageProcessor
from ..models.semantic_readout import read_logits_map
from .loading import default_device, load_model
from .mattes import matte_values
from .memory import PeakMemory, available_memory, least_memory, out_of_memory
from .tiling import tile_spans


@dataclass
class Segmentation:
    """
    A photograph's label map and what it took.

    Attributes:
        label_map (`np.ndarray` of shape `(height, width)`): uint8 class indices.
        seconds (`float`): From the photograph in memory to the label map in memory.
        peak_bytes (`int`, *optional*): Peak memory, see [`PeakMemory`].
        semantic_priors (`list[np.ndarray]`, *optional*):
            For each stage of a SeMask backbone its most likely classes, uint8, at the size of [`prior_size`].
        mattes (`np.ndarray` of shape `(num_labels, height, width)`, *optional*): See [`matte_values`].
    """

    label_map: np.ndarray
    seconds: float
    peak_bytes: int | None
    semantic_priors: list[np.ndarray] | None = None
    mattes: np.ndarray | None = None


class Piece(NamedTuple):
    """What is made of a photograph, or of a tile of it."""

    label_map: np.ndarray
    mattes: np.ndarray | None
    priors: list[np.ndarray] | None


# Longer side of the pictures of semantic priors, which are coarse anyway.
PRIOR_SIDE = 1024


def prior_size(width: int, height: int) -> tuple[int, int]:
    """Height and width at which semantic priors are read: the photograph's, or less."""
    scale = min(1.0, PRIOR_SIDE / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


class PhotoSegmenter(ABC):
    """
    What makes label maps of whole photographs.

    Args:
        device (`torch.device`): Where it computes.
        tile (`int`, *optional*):
            Photographs that are higher or wider than so many pixels are segmented in overlapping tiles of this size.
            It bounds the memory, but a tile knows nothing of the rest of the photograph. By default they stay whole.
        mattes (`bool`, *optional*, defaults to `False`): Whether to return a matte of each class too.

    Raises:
        ValueError: If `tile` is smaller than 64.
    """

    dtype: torch.dtype
    num_semantic_labels: int | None

    def __init__(self, device: torch.device, tile: int | None = None, mattes: bool = False):
        if tile is not None and tile < 64:
            raise ValueError(f"Tiles must have 64 pixels or more, got {tile}.")
        self.device, self.tile, self.makes_mattes = device, tile, mattes

    @property
    @abstractmethod
    def labels(self) -> list[str]:
        """Names of the classes, in the order of their ids."""

    @property
    def num_labels(self) -> int:
        return len(self.labels)

    @abstractmethod
    def segment_whole(self, image: PIL.Image.Image) -> Piece:
        """An image in one piece."""

    def segment_tiles(self, image: PIL.Image.Image, tile: int) -> Piece:
        """An image in overlapping tiles."""
        size = (image.height, image.width)
        label_map = np.empty(size, dtype=np.uint8)
        mattes = np.empty((self.num_labels, *size), dtype=np.uint8) if self.makes_mattes else None
        for top, bottom, first_row, last_row in tile_spans(image.height, tile):
            for left, right, first_column, last_column in tile_spans(image.width, tile):
                part = self.segment_whole(image.crop((left, top, right, bottom)))
                rows, columns = slice(first_row, last_row), slice(first_column, last_column)
                kept = slice(first_row - top, last_row - top), slice(first_column - left, last_column - left)
                label_map[rows, columns] = part.label_map[kept]
                if mattes is not None and part.mattes is not None:
                    mattes[:, rows, columns] = part.mattes[:, kept[0], kept[1]]
        return Piece(label_map, mattes, None)

    def __call__(self, image: PIL.Image.Image) -> Segmentation:
        """
        Segments one photograph at its own size.

        Raises:
            MemoryError: If it does not fit into memory.
        """
        start = time.perf_counter()
        with PeakMemory(self.device) as memory:
            piece = self.segment_tiles(image, self.tile) if self.tile else self.segment_whole(image)
        seconds = time.perf_counter() - start
        return Segmentation(piece.label_map, seconds, memory.bytes, piece.priors, piece.mattes)


class Segmenter(PhotoSegmenter):
    """
    A model and its image processor, for whole photographs.

    Args:
        model (`str` or `Path`): A folder (or Hub name) with the model and its image processor.
        device (`str`, *optional*): By default the fastest here.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Type of the weights and of most computations.
        tile (`int`, *optional*):
            Photographs that are higher or wider than so many pixels are segmented in overlapping tiles of this size.
            It bounds the memory, but a tile knows nothing of the rest of the photograph. By default they stay whole.
        semantic_priors (`bool`, *optional*, defaults to `False`):
            Whether to return the semantic maps of a SeMask backbone too, for which photographs stay whole.
        mattes (`bool`, *optional*, defaults to `False`): Whether to return a matte of each class too.

    Raises:
        FileNotFoundError: If there is no such model, or it has no weights.
        ValueError: If `tile` is smaller than 64, there are to be semantic priors and the model has none, or there are
            to be mattes and its image processor gives no scores.
    """

    def __init__(
        self,
        model: str | Path,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        tile: int | None = None,
        semantic_priors: bool = False,
        mattes: bool = False,
    ):
        super().__init__(torch.device(device or default_device()), tile, mattes)
        if tile is not None and semantic_priors:
            raise ValueError("Semantic priors are those of whole photographs; leave out the tiles.")
        self.dtype, self.shows_priors = dtype, semantic_priors
        self.model, self.processor = load_model(model)
        self.model.to(device=self.device, dtype=dtype)
        self.num_semantic_labels = getattr(
            getattr(self.model.config, "backbone_config", None), "num_semantic_labels", None
        )
        if semantic_priors and self.num_semantic_labels is None:
            raise ValueError(f"{model} has no semantic layers, whose maps could be shown; a SeMask backbone has.")
        if mattes and not isinstance(self.processor, MaSSFormerImageProcessor):
            raise ValueError(f"The image processor of {model} gives no scores, which mattes are made of.")

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of their ids."""
        return [label for _, label in sorted((self.model.config.id2label or {}).items())]

    def read_priors(self, outputs: Any, input_size: tuple[int, int], image: PIL.Image.Image) -> list[np.ndarray]:
        """The most likely classes of each stage's semantic map."""
        priors = []
        for semantic_map in outputs.semantic_maps:
            strides = (input_size[0] / semantic_map.shape[2], input_size[1] / semantic_map.shape[3])
            label_map, _ = read_logits_map(
                semantic_map[0], prior_size(*image.size), (image.height, image.width), strides
            )
            priors.append(label_map.to(torch.uint8).cpu().numpy())
        return priors

    def check_memory(self, width: int, height: int):
        """
        Refuses what MaSSFormer surely cannot hold. Most systems promise more memory than they have, and end who takes
        it. Of other models nothing is known.
        """
        if not isinstance(self.model.config, MaSSFormerConfig):
            return
        needed = least_memory(self.model.config, height, width, self.dtype)
        available = available_memory(self.device)
        if needed > available:
            raise MemoryError(
                f"{width} x {height} pixels need more than {needed / 2**30:.1f} GiB in {self.dtype}, and "
                f"{available / 2**30:.1f} GiB are free on {self.device}. {self.remedies()}"
            )

    def remedies(self) -> str:
        smaller_dtype = "" if self.dtype.itemsize < 4 else "a smaller dtype (bfloat16), "
        tile = self.tile // 2 if self.tile else 2048
        return f"Use tiles (of {tile} pixels, say), {smaller_dtype}or a smaller variant of the model (r18-lite)."

    @torch.inference_mode()
    def segment_whole(self, image: PIL.Image.Image) -> Piece:
        """An image in one piece."""
        self.check_memory(*image.size)
        with out_of_memory(
            f"{image.width} x {image.height} pixels do not fit into the memory of {self.device} in {self.dtype}. "
            f"{self.remedies()}"
        ):
            inputs = self.processor(images=image, return_tensors="pt").to(self.device, self.dtype)
            outputs = self.model(**inputs)
            priors = None
            if self.shows_priors:
                priors = self.read_priors(outputs, tuple(inputs["pixel_values"].shape[-2:]), image)
            (read,) = self.processor.post_process_semantic_segmentation(
                outputs, target_sizes=[(image.height, image.width)], **self.read_options
            )
            mattes = matte_values(read.segmentation_scores) if self.makes_mattes else None
            label_map = read.segmentation if self.makes_mattes else read
        return Piece(label_map.to(torch.uint8).cpu().numpy(), mattes, priors)

    @property
    def read_options(self) -> dict[str, Any]:
        """Of the post-processing; that of other models may know of no scores."""
        return {"return_segmentation_scores": True} if self.makes_mattes else {}
