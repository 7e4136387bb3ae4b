"""Read checkpoints of unknown origin without executing anything in them."""

import pickle
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers.utils import logging


logger = logging.get_logger(__name__)

# Training frameworks whose objects may be stored beside the weights. They are not needed, so they are not rebuilt.
FOREIGN_PACKAGES = ("mmengine", "mmcv", "mmdet", "mmseg")


class InertObject:
    """Replacement for a foreign object that accepts and ignores any state."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass


def numpy_globals() -> list:
    """List the functions and classes that rebuild numpy arrays and scalars from a pickle, by old and new names."""
    functions = {"_reconstruct": np.empty(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
    named = [
        (function, f"numpy.{core}.multiarray.{name}")
        for name, function in functions.items()
        for core in ("core", "_core")
    ]
    dtypes = [value for value in vars(np.dtypes).values() if isinstance(value, type)]
    return [*named, np.ndarray, np.dtype, *dtypes]


def load_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """
    Load the weights of a PyTorch or safetensors file, at the top level or under the key `state_dict`. Nothing in the
    file is executed: objects of the training framework are replaced by inert ones, and anything but tensors, numpy
    arrays and Python containers is refused.

    Args:
        path (`str` or `Path`): The checkpoint.

    Returns:
        `dict[str, torch.Tensor]`: Weights by name, on the CPU.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not a checkpoint, is damaged, or contains objects that would have to be executed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    checkpoint = load_pickle(path)
    state_dict = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(state_dict, dict) or not state_dict:
        raise ValueError(f"{path} contains no weights, neither at the top level nor under 'state_dict'.")
    foreign = [name for name, value in state_dict.items() if not isinstance(value, torch.Tensor)]
    if foreign:
        raise ValueError(f"{path} contains entries other than tensors among its weights: {foreign[:10]}.")
    return dict(state_dict)


def load_pickle(path: Path):
    """Call `torch.load` with `weights_only=True` and stand-ins for foreign classes."""
    try:
        needed = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError):
        # Files older than PyTorch 1.6 are not in the zip format, and their globals cannot be listed beforehand.
        needed = []
    stand_ins = [(InertObject, name) for name in needed if name.split(".")[0] in FOREIGN_PACKAGES]
    if stand_ins:
        logger.info(f"Ignoring objects beside the weights: {', '.join(name for _, name in stand_ins)}.")
    try:
        with torch.serialization.safe_globals([*numpy_globals(), *stand_ins]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        allowed = {name for _, name in stand_ins}
        allowed |= {f"{x.__module__}.{x.__qualname__}" if isinstance(x, type) else x[1] for x in numpy_globals()}
        refused = [name for name in needed if name not in allowed] or re.findall(r"GLOBAL (\S+)", str(error))
        reason = f"it refers to {', '.join(refused)}" if refused else "it is not a checkpoint, or it is damaged"
        raise ValueError(
            f"{path} cannot be loaded without running code from it: {reason}. If you trust the file, save its "
            "`state_dict` alone with `torch.save` and convert that."
        ) from error
    except Exception as error:
        # The bytes of an arbitrary file can make the unpickler raise anything.
        raise ValueError(f"{path} is not a PyTorch checkpoint or is damaged ({error!r}).") from error
