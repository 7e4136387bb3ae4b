"""How much memory there is, how much a photograph takes, and what happens when it is short."""

import contextlib
import math
from pathlib import Path

import psutil
import torch


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
    fusion_width = config.pixel_decoder_hidden_size // config.fusion_reduction
    # Per position at stride 2: the mask logits, the fused map, and the body at stride 4.
    values = config.num_queries + fusion_width + config.pixel_decoder_hidden_size / 4
    return math.ceil(height / 2) * math.ceil(width / 2) * int(values * dtype.itemsize)
