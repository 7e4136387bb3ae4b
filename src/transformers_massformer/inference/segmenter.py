"""Segmenting whole photographs, outside a pipeline."""

import contextlib
import itertools
import math
import re
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import psutil
import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
    MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
)

from ..models.configuration_massformer import MaSSFormerConfig
from ..models.image_processing_massformer import MaSSFormerImageProcessor
from ..models.semantic_readout import read_logits_map
from .mattes import matte_values


try:
    import resource
except ImportError:  # Windows
    resource = None


# How torch says that memory is short.
OUT_OF_MEMORY = ("out of memory", "you tried to allocate", "bad_alloc")


@contextlib.contextmanager
def out_of_memory(message: str):
    """Turns what libraries raise when memory is short into a MemoryError with this message."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # Only GPUs have a type of their own for it.
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise MemoryError(message) from error


def default_device() -> str:
    """The device that computes fastest here: CUDA, Apple's GPU, or the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def auto_class(config: PreTrainedConfig) -> Any:
    """The Auto class that has a segmentation model of this kind."""
    for mapping, found in (
        (MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING, AutoModelForSemanticSegmentation),
        (MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING, AutoModelForUniversalSegmentation),
    ):
        if type(config) in mapping:
            return found
    raise ValueError(f"A model of type {config.model_type} segments no classes.")


def load_model(model: str | Path) -> tuple[PreTrainedModel, Any]:
    """
    A segmentation model in float32, ready for inference, and its image processor.

    Args:
        model (`str` or `Path`): A folder (or Hub name) with both.

    Raises:
        FileNotFoundError: If there is no such model, or it has no weights.
        ValueError: If it is no segmentation model.
    """
    path = Path(model)
    is_hub_name = isinstance(model, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model)
    if not path.is_dir() and not is_hub_name:
        raise FileNotFoundError(f"There is no folder {model} with a model.")
    if path.is_dir() and not list(path.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{model} holds no weights (*.safetensors). Convert a checkpoint with `massformer convert`, or name a "
            "folder that a training saved."
        )
    try:
        found = auto_class(AutoConfig.from_pretrained(model))
        processor = AutoImageProcessor.from_pretrained(model)
        network = found.from_pretrained(model, dtype=torch.float32)
    except OSError as error:
        raise FileNotFoundError(f"There is no model at {model}: {error}") from error
    if hasattr(network, "fuse"):
        network.fuse()
    return network.eval(), processor


class PeakMemory:
    """
    The most memory used within a `with` block: the allocator's on CUDA, the whole process's elsewhere.

    `bytes` holds it after the block. On Linux the process's peak is reset at the start of the block; other Unix
    systems only tell the peak since the process began; on Windows it stays `None`.
    """

    def __init__(self, device: str | torch.device):
        self.device = torch.device(device)
        self.bytes: int | None = None

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        return self

    def __exit__(self, *exception):
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            self.bytes = self.resident_peak()

    @staticmethod
    def resident_peak() -> int | None:
        status = Path("/proc/self/status")
        if status.exists():
            (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            return int(line.split()[1]) * 1024
        if resource is None:
            return None
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory_text(num_bytes: int | None) -> str:
    """An amount of memory for people."""
    return "unknown" if num_bytes is None else f"{num_bytes / 2**30:.2f} GiB"


def available_memory(device: torch.device) -> int:
    """Bytes that can still be allocated: of the GPU, else of the machine's memory or the control group's."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    available = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        available = min(available, limit - used)
    return available


def least_memory(config, height: int, width: int, dtype: torch.dtype) -> int:
    """
    Bytes without which an image cannot be segmented, whatever the backbone: the maps at half its resolution which
    exist together.

    Args:
        config (`MaSSFormerConfig`): The model's configuration.
        height (`int`): Height of the image in pixels.
        width (`int`): Width of the image in pixels.
        dtype (`torch.dtype`): Type of the computation.
    """
    fusion_width = config.pixel_decoder_hidden_size // (
        config.fusion_reduction if config.use_edge_guided_fusion else 1
    )
    # Per position at stride 2: the mask logits, the fused map, and the body at stride 4.
    values = config.num_queries + fusion_width + config.pixel_decoder_hidden_size / 4
    return math.ceil(height / 2) * math.ceil(width / 2) * int(values * dtype.itemsize)


def tile_spans(length: int, tile: int) -> list[tuple[int, int, int, int]]:
    """
    Tiles along one axis, evenly spread, which overlap by an eighth or more. Of an overlap, each tile keeps its half.

    Returns:
        `list[tuple[int, int, int, int]]`: first pixel and the one after the last, of each tile and of what it keeps.
    """
    if tile >= length:
        return [(0, length, 0, length)]
    overlap = tile // 8
    count = math.ceil((length - overlap) / (tile - overlap))
    starts = [round(index * (length - tile) / (count - 1)) for index in range(count)]
    cuts = [0, *((start + previous + tile) // 2 for previous, start in itertools.pairwise(starts)), length]
    return [(start, start + tile, *kept) for start, kept in zip(starts, itertools.pairwise(cuts), strict=True)]


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
