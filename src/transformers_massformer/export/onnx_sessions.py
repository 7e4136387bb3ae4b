"""Run exported models in ONNX Runtime."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..inference.memory import OUT_OF_MEMORY
from .libraries import onnx_runtime
from .photograph import IMAGE


# ONNX Runtime's execution providers by PyTorch's name of the device.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxSession:
    """
    An exported model in ONNX Runtime, see [`ExportedPredictor`].

    Args:
        path (`Path`): The ONNX file.
        device (`torch.device`): Where to compute.
        dtype (`torch.dtype`, *optional*): Not to be set; the file has its own.
        options (`dict[str, str]`, *optional*): Options of the execution provider.

    Raises:
        FileNotFoundError: If the file does not exist.
        MissingExtraError: If ONNX Runtime is not installed.
        ValueError: If it is not an exported model, or ONNX Runtime does not compute on this device.
    """

    name = "ONNX Runtime"
    # Substrings of errors that say that memory ran out.
    allocation_failed = (*OUT_OF_MEMORY, "failed to allocate", "allocation failed")

    def __init__(
        self, path: Path, device: torch.device, dtype: torch.dtype | None = None, options: dict[str, str] | None = None
    ):
        self.session, self.description = open_session(onnx_runtime(), path, device, options)
        self.dtype = getattr(torch, self.description["dtype"])
        if dtype not in (None, self.dtype):
            raise ValueError(f"{path} has a fixed precision, {self.dtype}, not {dtype}; export the model again.")
        self.outputs = [output.name for output in self.session.get_outputs()]
        height, width = self.session.get_inputs()[0].shape[:2]
        self.size = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for a photograph, uint8 RGB of shape `(height, width, 3)`."""
        return self.session.run(None, {IMAGE: image})


def execution_provider(runtime: Any, device: torch.device, options: dict[str, str] | None) -> tuple[str, dict]:
    """
    Return the name and the options of ONNX Runtime's execution provider for a device.

    Raises:
        ValueError: If it does not compute on this device.
    """
    name = PROVIDERS.get(device.type)
    if name is None or name not in runtime.get_available_providers():
        raise ValueError(
            f"ONNX Runtime does not compute on {device} here; it has "
            f"{', '.join(runtime.get_available_providers())}. Choose --device cpu, or install onnxruntime-gpu."
        )
    if device.type == "cpu" and device.index:
        raise ValueError(f"ONNX Runtime has one CPU, not {device}; choose --device cpu.")
    number = {} if device.type == "cpu" or device.index is None else {"device_id": str(device.index)}
    return name, {**number, **(options or {})}


def open_session(
    runtime: Any, path: Path, device: torch.device, provider_options: dict[str, str] | None = None
) -> tuple[Any, dict[str, Any]]:
    """
    Open an exported model.

    Args:
        runtime (`module`): ONNX Runtime.
        path (`Path`): The file.
        device (`torch.device`): Where to compute.
        provider_options (`dict[str, str]`, *optional*): Further options of the execution provider.

    Returns:
        `tuple`: the `onnxruntime.InferenceSession`, and the description that the export wrote into the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not an exported model, or ONNX Runtime does not compute on this device.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    provider = execution_provider(runtime, device, provider_options)
    options = runtime.SessionOptions()
    # Memory that is kept would add up over photographs of different sizes.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(path), options, providers=[provider])
        description = json.loads(session.get_modelmeta().custom_metadata_map["massformer"])
    except KeyError:
        raise ValueError(f"{path} was not written by `massformer export`.") from None
    except Exception as error:  # ONNX Runtime's errors have no other type in common.
        raise ValueError(f"{path} is not an ONNX model that ONNX Runtime can open on {device}: {error}") from error
    # Where a provider cannot start, ONNX Runtime computes on the CPU without an error.
    if provider[0] not in session.get_providers():
        raise ValueError(
            f"ONNX Runtime cannot compute on {device}: its {provider[0]} did not start, perhaps because the GPU or "
            "its libraries are missing. Choose --device cpu."
        )
    return session, description
