"""Segmenting photographs with an exported model, through ONNX Runtime."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..inference.mattes import matte_values
from ..inference.memory import OUT_OF_MEMORY
from ..inference.predictor import Prediction, PredictionOptions, Predictor
from ..models.semantic_readout import read_semantic_map
from .libraries import onnx_runtime
from .photograph import IMAGE, LABEL_MAP


# ONNX Runtime's execution providers by PyTorch's name of the device.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Substrings of ONNX Runtime's out-of-memory errors.
ALLOCATION_FAILED = (*OUT_OF_MEMORY, "failed to allocate", "allocation failed")
# The options that do not change the graph's input or the way it is read.
POSSIBLE_OPTIONS = {"tile", "overlap"}


def is_onnx(model: str | Path) -> bool:
    """Tell whether a model's name is that of an ONNX file."""
    return Path(model).suffix.lower() == ".onnx"


class OnnxPredictor(Predictor):
    """
    Segments photographs with an exported model, in the same tiles as [`ModelPredictor`].

    Args:
        model (`str` or `Path`): The file that [`export_onnx`] wrote.
        device (`str`, *optional*, defaults to `"cpu"`): `"cpu"`, `"cuda"`, or a certain GPU, such as `"cuda:1"`.
        options ([`PredictionOptions`], *optional*): Only `tile` and `overlap` may be set.
        provider_options (`dict[str, str]`, *optional*):
            Options of ONNX Runtime's execution provider, such as `{"gpu_mem_limit": "8589934592"}` for CUDA.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If ONNX Runtime is not installed.
        ValueError: If the file is not an exported model, ONNX Runtime does not have this device, or other options are
            set.
    """

    def __init__(
        self,
        model: str | Path,
        device: str | None = None,
        options: PredictionOptions | None = None,
        provider_options: dict[str, str] | None = None,
    ):
        runtime, where = onnx_runtime(), named_device(device or "cpu")
        self.path = Path(model)
        self.session, metadata = open_session(runtime, self.path, where, provider_options)
        super().__init__(metadata["labels"], where, getattr(torch, metadata["dtype"]), options)
        impossible = sorted(self.options.changed().keys() - POSSIBLE_OPTIONS)
        if impossible:
            raise ValueError(
                f"{model} prepares and reads photographs in its graph; leave out {', '.join(impossible)}, or use the "
                "folder of the model."
            )
        self.gives_label_maps = [output.name for output in self.session.get_outputs()] == [LABEL_MAP]

    def check_mattes(self):
        if self.gives_label_maps:
            raise ValueError(
                f"{self.path} gives label maps without scores, which mattes are made of. Export the model with "
                "--queries."
            )
        super().check_mattes()

    def check_size(self, width: int, height: int):
        """
        Check that the graph takes photographs of this size.

        Raises:
            ValueError: If it is a graph for another size.
        """
        wanted = self.session.get_inputs()[0].shape[:2]
        if all(isinstance(length, int) for length in wanted) and tuple(wanted) != (height, width):
            raise ValueError(
                f"{self.path} takes photographs of {wanted[1]} x {wanted[0]} pixels, not of {width} x {height}. "
                "Export the model with --dynamic for any size."
            )

    def run(self, image: PIL.Image.Image) -> list[np.ndarray]:
        """
        Return the graph's outputs for a photograph: the label map, or the logits of all queries.

        Raises:
            MemoryError: If the photograph does not fit into memory.
            ValueError: If the graph is one for another size.
        """
        self.check_size(*image.size)
        try:
            return self.session.run(None, {IMAGE: np.asarray(image)})
        except Exception as error:  # ONNX Runtime's errors have no other type in common.
            if any(words in str(error).lower() for words in ALLOCATION_FAILED):
                raise MemoryError(
                    f"{image.width} x {image.height} pixels do not fit into memory. Use tiles (of 2048 pixels, say)."
                ) from error
            raise RuntimeError(f"ONNX Runtime cannot run {self.path}: {error}") from error

    def predict_whole(self, image: PIL.Image.Image, mattes: bool = False, semantic_priors: bool = False) -> Prediction:
        outputs = self.run(image)
        if self.gives_label_maps:
            return Prediction(torch.from_numpy(outputs[0]))
        class_logits, masks = (torch.from_numpy(output[0]) for output in outputs)
        size = (image.height, image.width)
        label_map, scores = read_semantic_map(class_logits, masks, size, size, return_scores=mattes)
        return Prediction(label_map.to(self.label_dtype), None if scores is None else matte_values(scores))


def named_device(name: str) -> torch.device:
    """
    Return the device of a name.

    Raises:
        ValueError: If there is no such name.
    """
    try:
        return torch.device(name)
    except RuntimeError:
        raise ValueError(f"{name!r} is no device; choose cpu, cuda or cuda:1.") from None


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
