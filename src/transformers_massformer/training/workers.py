"""Bring batches from worker processes to the main process, also where shared memory is short, as in containers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info
from transformers.utils import logging

from ..utils.machine import free_space
from ..utils.text import format_bytes


logger = logging.get_logger(__name__)

SHARED_MEMORY = Path("/dev/shm")
# Batches of a worker that wait in shared memory at the same time: PyTorch prefetches two, and one is in use.
WAITING_BATCHES = 3


def tensor_from(array: np.ndarray) -> torch.Tensor:
    """Turn an array into a tensor."""
    return torch.from_numpy(array)


class PipedTensor:
    """A tensor that is copied through a pipe when it is sent to another process, and arrives there as a tensor."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor

    def __reduce__(self) -> tuple[Callable, tuple[np.ndarray]]:
        return tensor_from, (self.tensor.numpy(),)


def map_tensors(function: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """Apply a function to all tensors in nested dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: map_tensors(function, each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(function, each) for each in value)
    return value


class WorkerCollate:
    """
    Collate function for data loaders whose workers may lack shared memory. PyTorch passes tensors in it, and without
    enough of it a worker loses its batch and the training waits for ever; such batches are sent through a pipe.

    Args:
        collate (`Callable`): Makes a batch of samples.
    """

    def __init__(self, collate: Callable[[Sequence[Any]], Any]):
        self.collate = collate

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Make a batch; in a worker, choose how it travels."""
        batch, worker = self.collate(samples), get_worker_info()
        if worker is None:
            return batch
        sizes: list[int] = []
        map_tensors(lambda tensor: sizes.append(tensor.nbytes), batch)
        needed, free = sum(sizes) * worker.num_workers * WAITING_BATCHES, free_space(SHARED_MEMORY)
        if free is None or needed < free:
            return batch
        if worker.id == 0:
            logger.warning_once(
                f"Shared memory is short: workers need {format_bytes(needed)}, and {SHARED_MEMORY} has "
                f"{format_bytes(free)} free. Batches are sent through a pipe, which is slower. In Docker, raise "
                "--shm-size."
            )
        return map_tensors(PipedTensor, batch)
