"""Memory: how much is available, how much a photograph needs, and errors when it runs out."""

import contextlib
import math

import torch

from ..models.configuration_massformer import MaSSFormerConfig
from ..utils.machine import free_memory
from ..utils.process_memory import reset_resident_peak, resident_peak


# Substrings of PyTorch's out-of-memory errors.
OUT_OF_MEMORY = ("out of memory", "you tried to allocate", "bad_alloc")


@contextlib.contextmanager
def out_of_memory(message: str):
    """Turn the errors that libraries raise when memory runs out into a MemoryError with this message."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # Only GPUs have an error type of their own for it.
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise MemoryError(message) from error


class PeakMemory:
    """
    Peak memory of a `with` block: the allocator's on CUDA, the whole process's elsewhere.

    `bytes` holds it after the block. On Linux the process's peak is reset at the start of the block; other Unix
    systems only report the peak since the process started; on Windows it stays `None`.
    """

    def __init__(self, device: str | torch.device):
        self.device = torch.device(device)
        self.bytes: int | None = None

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            reset_resident_peak()
        return self

    def __exit__(self, *exception):
        is_cuda = self.device.type == "cuda"
        self.bytes = torch.cuda.max_memory_allocated(self.device) if is_cuda else resident_peak()


def available_memory(device: torch.device) -> int:
    """Return the bytes that can still be allocated: on the GPU, else of the machine or the control group."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return free_memory()


def least_memory(config: MaSSFormerConfig, height: int, width: int, dtype: torch.dtype) -> int:
    """
    Return the bytes that segmenting an image needs at least, whatever the backbone: the maps at half its resolution
    that exist at the same time.

    Args:
        config (`MaSSFormerConfig`): The model's configuration.
        height (`int`), width (`int`): Size of the image in pixels.
        dtype (`torch.dtype`): Type of the computation.
    """
    fusion_width = config.pixel_decoder_hidden_size // config.fusion_reduction
    # Per position at stride 2: the mask logits, the fused map, and the body at stride 4.
    values = config.num_queries + fusion_width + config.pixel_decoder_hidden_size / 4
    return math.ceil(height / 2) * math.ceil(width / 2) * int(values * dtype.itemsize)
