"""Segmenting photographs with an exported model, without PyTorch's."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from ..inference.mattes import matte_values
from ..inference.memory import OUT_OF_MEMORY
from ..inference.segmenter import PhotoSegmenter, Piece
from ..models.semantic_readout import read_semantic_map
from .libraries import onnx_runtime
from .photograph import IMAGE, LABEL_MAP


# ONNX Runtime's name for what computes, by PyTorch's name of the device.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# How ONNX Runtime says that memory is short.
ALLOCATION_FAILED = (*OUT_OF_MEMORY, "failed to allocate", "allocation failed")


def is_onnx(model: str | Path) -> bool:
    """Whether a model's name is that of an ONNX file."""
    return Path(model).suffix.lower() == ".onnx"


class OnnxSegmenter(PhotoSegmenter):
    """
    An exported model, for whole photographs.

    Args:
        model (`str` or `Path`): The file that [`export_onnx`] wrote.
        device (`str`, *optional*, defaults to `"cpu"`): `"cpu"` or `"cuda"`.
        tile (`int`, *optional*): See [`Segmenter`].
        mattes (`bool`, *optional*, defaults to `False`): Whether to return a matte of each class too.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If ONNX Runtime is not installed.
        ValueError: If the file is no exported model, ONNX Runtime has no such device here, or there are to be mattes
            and the graph gives label maps only.
    """

    num_semantic_labels = None

    def __init__(self, model: str | Path, device: str | None = None, tile: int | None = None, mattes: bool = False):
        runtime = onnx_runtime()
        super().__init__(torch.device(device or "cpu"), tile, mattes)
        self.path = Path(model)
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no file {model}.")
        provider = PROVIDERS.get(self.device.type)
        if provider not in runtime.get_available_providers():
            raise ValueError(
                f"ONNX Runtime does not compute on {self.device} here; it has "
                f"{', '.join(runtime.get_available_providers())}. Choose --device cpu, or install onnxruntime-gpu."
            )
        options = runtime.SessionOptions()
        # Kept memory would add up over photographs of different sizes.
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(str(model), options, providers=[provider])
            self.metadata = json.loads(self.session.get_modelmeta().custom_metadata_map["massformer"])
        except KeyError:
            raise ValueError(f"{model} was not written by `massformer export`.") from None
        except Exception as error:  # ONNX Runtime's errors have no type in common but this.
            raise ValueError(f"{model} is no ONNX model that ONNX Runtime can open: {error}") from error
        self.dtype = getattr(torch, self.metadata["dtype"])
        self.gives_label_maps = [output.name for output in self.session.get_outputs()] == [LABEL_MAP]
        if mattes and self.gives_label_maps:
            raise ValueError(
                f"{model} gives label maps, which have no scores to make mattes of. Export the model with --queries."
            )

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of their ids."""
        return self.metadata["labels"]

    def check_size(self, width: int, height: int):
        """Refuses what a graph for one size cannot take."""
        wanted = self.session.get_inputs()[0].shape[:2]
        if all(isinstance(length, int) for length in wanted) and tuple(wanted) != (height, width):
            raise ValueError(
                f"{self.path} takes photographs of {wanted[1]} x {wanted[0]} pixels, not of {width} x {height}. "
                "Export the model with --dynamic for any size."
            )

    def run(self, image: PIL.Image.Image) -> list[np.ndarray]:
        """
        The graph's outputs for a photograph: the label map, or the logits of all queries.

        Raises:
            MemoryError: If the photograph does not fit into memory.
            ValueError: If the graph is one for another size.
        """
        self.check_size(*image.size)
        try:
            return self.session.run(None, {IMAGE: np.asarray(image.convert("RGB"))})
        except Exception as error:  # See above.
            if any(words in str(error).lower() for words in ALLOCATION_FAILED):
                raise MemoryError(
                    f"{image.width} x {image.height} pixels do not fit into memory. Use tiles (of 2048 pixels, say)."
                ) from error
            raise RuntimeError(f"ONNX Runtime cannot run {self.path}: {error}") from error

    def segment_whole(self, image: PIL.Image.Image) -> Piece:
        """An image in one piece."""
        outputs = self.run(image)
        if self.gives_label_maps:
            return Piece(outputs[0], None, None)
        class_logits, masks = (torch.from_numpy(output[0]) for output in outputs)
        size = (image.height, image.width)
        label_map, scores = read_semantic_map(class_logits, masks, size, size, return_scores=self.makes_mattes)
        mattes = None if scores is None else matte_values(scores)
        return Piece(label_map.to(torch.uint8).numpy(), mattes, None)
