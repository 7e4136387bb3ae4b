"""Segmenting photographs with an exported model, in the runtime of its format."""

from pathlib import Path

import numpy as np
import PIL.Image
import torch

from ..inference.mattes import matte_values
from ..inference.predictor import Prediction, PredictionOptions, Predictor
from ..models.semantic_readout import read_semantic_map
from .onnx_sessions import OnnxSession
from .openvino_models import OpenVinoModel
from .photograph import LABEL_MAP


# Runtimes by the suffix of the exported file.
RUNTIMES = {".onnx": OnnxSession, ".xml": OpenVinoModel}
# The options that do not change the graph's input or the way it is read.
POSSIBLE_OPTIONS = {"tile", "overlap"}


def is_exported(model: str | Path) -> bool:
    """Tell whether a model's name is that of an exported file."""
    return Path(model).suffix.lower() in RUNTIMES


class ExportedPredictor(Predictor):
    """
    Segments photographs with an exported model, in the same tiles as [`ModelPredictor`]: an ONNX file in ONNX Runtime,
    an OpenVINO model in OpenVINO.

    Args:
        model (`str` or `Path`): The file that [`export_model`] wrote, .onnx or .xml.
        device (`str`, *optional*, defaults to `"cpu"`):
            `"cpu"`, or a certain GPU: `"cuda"` or `"cuda:1"` for ONNX Runtime, `"xpu"` for OpenVINO.
        options ([`PredictionOptions`], *optional*): Only `tile` and `overlap` may be set.
        dtype (`torch.dtype`, *optional*):
            To check: ONNX files have a fixed precision, and OpenVINO computes in float32.
        runtime_options (`dict[str, str]`, *optional*):
            Options of ONNX Runtime's execution provider, such as `{"gpu_mem_limit": "8589934592"}` for CUDA, or
            properties of OpenVINO's device, such as `{"INFERENCE_NUM_THREADS": "4"}`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If the runtime is not installed.
        ValueError: If the file is not an exported model, the runtime does not have this device or precision, or other
            options are set.
    """

    def __init__(
        self,
        model: str | Path,
        device: str | None = None,
        options: PredictionOptions | None = None,
        dtype: torch.dtype | None = None,
        runtime_options: dict[str, str] | None = None,
    ):
        self.path, where = Path(model), named_device(device or "cpu")
        if not is_exported(model):
            raise ValueError(f"{model} is no exported model; their names end in {' or '.join(RUNTIMES)}.")
        self.runtime = RUNTIMES[self.path.suffix.lower()](self.path, where, dtype, runtime_options)
        super().__init__(self.runtime.description["labels"], where, self.runtime.dtype, options)
        impossible = sorted(self.options.changed().keys() - POSSIBLE_OPTIONS)
        if impossible:
            raise ValueError(
                f"{model} prepares and reads photographs in its graph; leave out {', '.join(impossible)}, or use the "
                "folder of the model."
            )
        self.gives_label_maps = self.runtime.outputs == [LABEL_MAP]

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
        wanted = self.runtime.size
        if wanted is not None and wanted != (height, width):
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
            return self.runtime.run(np.asarray(image))
        except Exception as error:  # The runtimes' errors have no other type in common.
            if any(words in str(error).lower() for words in self.runtime.allocation_failed):
                raise MemoryError(
                    f"{image.width} x {image.height} pixels do not fit into memory. Use tiles (of 2048 pixels, say)."
                ) from error
            raise RuntimeError(f"{self.runtime.name} cannot run {self.path}: {error}") from error

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
