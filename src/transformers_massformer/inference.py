"""Segmenting whole photographs, outside a pipeline."""

import contextlib
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation


try:
    import resource
except ImportError:  # Windows
    resource = None


def default_device() -> str:
    """The device that computes fastest here: CUDA, Apple's GPU, or the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


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


@dataclass
class Segmentation:
    """
    A photograph's label map and what it took.

    Attributes:
        label_map (`np.ndarray` of shape `(height, width)`): uint8 class indices.
        seconds (`float`): From the photograph in memory to the label map in memory.
        peak_bytes (`int`, *optional*): Peak memory, see [`PeakMemory`].
    """

    label_map: np.ndarray
    seconds: float
    peak_bytes: int | None


class Segmenter:
    """
    A model and its image processor, for whole photographs.

    Args:
        model (`str` or `Path`): A folder (or Hub name) with the model and its image processor.
        device (`str`, *optional*): By default the fastest here.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Type of the weights and of most computations.

    Raises:
        FileNotFoundError: If there is no such model, or it has no weights.
    """

    def __init__(self, model: str | Path, device: str | None = None, dtype: torch.dtype = torch.float32):
        self.device, self.dtype = torch.device(device or default_device()), dtype
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
            self.processor = AutoImageProcessor.from_pretrained(model)
            self.model = AutoModelForSemanticSegmentation.from_pretrained(model, dtype=dtype).to(self.device).eval()
        except OSError as error:
            raise FileNotFoundError(f"There is no model at {model}: {error}") from error

    @property
    def num_labels(self) -> int:
        return self.model.config.num_labels

    @torch.inference_mode()
    def __call__(self, image: PIL.Image.Image) -> Segmentation:
        """Segments one photograph at its own size."""
        start = time.perf_counter()
        with PeakMemory(self.device) as memory:
            inputs = self.processor(images=image, return_tensors="pt").to(self.device, self.dtype)
            outputs = self.model(**inputs)
            target_sizes = [(image.height, image.width)]
            label_map = self.processor.post_process_semantic_segmentation(outputs, target_sizes=target_sizes)[0]
            label_map = label_map.to(torch.uint8).cpu().numpy()
        return Segmentation(label_map, time.perf_counter() - start, memory.bytes)
