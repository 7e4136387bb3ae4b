"""Convert exported graphs to OpenVINO, and run them there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..inference.memory import OUT_OF_MEMORY
from .antialias import without_antialiasing
from .libraries import openvino_runtime
from .photograph import IMAGE


# OpenVINO's devices by PyTorch's name.
DEVICES = {"cpu": "CPU", "xpu": "GPU"}
# Where the description is kept in a model.
DESCRIPTION = "massformer"


def deform_conv(node: Any) -> Any:
    """Translate ONNX's deformable convolution, which OpenVINO's reader of ONNX lacks."""
    operators = openvino_runtime().opset8
    inputs = [node.get_input(index) for index in range(node.get_input_size())]
    hidden_states, weight, offsets, bias, *modulation = inputs
    pads = list(node.get_attribute("pads"))
    output = operators.deformable_convolution(
        hidden_states,
        offsets,
        weight,
        list(node.get_attribute("strides")),
        pads[:2],
        pads[2:],
        list(node.get_attribute("dilations")),
        mask=modulation[0] if modulation else None,
        deformable_group=node.get_attribute("offset_group"),
        # Taps beyond the border read zeros, as in PyTorch.
        bilinear_interpolation_pad=True,
    )
    axes = operators.constant(np.array([0, 2, 3]))
    return operators.add(output, operators.unsqueeze(bias, axes)).outputs()


def convert_to_openvino(graph: Any, path: Path):
    """
    Write a graph as OpenVINO's files, `path` (.xml) and the weights beside it (.bin).

    Args:
        graph (`onnx.ModelProto`): The graph, with its description.
        path (`Path`): The .xml file.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
        ValueError: If OpenVINO cannot read the graph.
    """
    openvino = openvino_runtime()
    core = openvino.Core()
    core.add_extension(openvino.frontend.onnx.ConversionExtension("DeformConv", deform_conv))
    try:
        # OpenVINO's reader of ONNX leaves out antialiasing without an error.
        model = core.read_model(without_antialiasing(graph).SerializeToString(), b"")
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot read the graph: {error}") from error
    for each in graph.metadata_props:
        model.set_rt_info(each.value, each.key)
    openvino.save_model(model, path, compress_to_fp16=False)


class OpenVinoModel:
    """
    An exported model in OpenVINO, see [`ExportedPredictor`]. It is compiled for the size of a photograph, which takes
    a second and makes it faster and smaller; photographs of the same size in a row share that.

    Args:
        path (`Path`): The .xml file, with the .bin file beside it.
        device (`torch.device`): Where to compute.
        dtype (`torch.dtype`, *optional*): Only float32 is possible.
        options (`dict[str, str]`, *optional*): Properties of the device, such as `{"INFERENCE_NUM_THREADS": "4"}`.

    Raises:
        FileNotFoundError: If one of the files does not exist.
        MissingExtraError: If OpenVINO is not installed.
        ValueError: If it is not an exported model, OpenVINO does not compute on this device, or in another precision.
    """

    name = "OpenVINO"
    allocation_failed = (*OUT_OF_MEMORY, "bad_alloc", "bad alloc", "failed to allocate")

    def __init__(
        self, path: Path, device: torch.device, dtype: torch.dtype | None = None, options: dict[str, str] | None = None
    ):
        self.core, self.dtype = openvino_runtime().Core(), torch.float32
        if dtype not in (None, self.dtype):
            # A precision hint would also round the positions that deformable convolutions read.
            raise ValueError(f"{path} is computed in float32, not in {str(dtype).removeprefix('torch.')}.")
        self.device = device_name(self.core, device)
        self.options = {**(options or {}), "INFERENCE_PRECISION_HINT": "f32"}
        self.model, self.description = read_model(self.core, path)
        self.outputs = [output.get_any_name() for output in self.model.outputs]
        shape = self.model.inputs[0].partial_shape
        self.size = None if shape.is_dynamic else tuple(shape.to_shape())[:2]
        self.compiled: Any = None

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for a photograph, uint8 RGB of shape `(height, width, 3)`."""
        if self.compiled is None or tuple(self.compiled.inputs[0].shape) != image.shape:
            # The memory of the previous size is freed first.
            self.compiled = None
            if self.size is None:
                self.model.reshape(list(image.shape))
            self.compiled = self.core.compile_model(self.model, self.device, self.options)
        results = self.compiled.create_infer_request().infer({IMAGE: image})
        return [np.array(results[output]) for output in self.compiled.outputs]


def device_name(core: Any, device: torch.device) -> str:
    """
    Return OpenVINO's name of a device.

    Raises:
        ValueError: If OpenVINO does not compute on it.
    """
    kind, available = DEVICES.get(device.type), core.available_devices
    name = kind if kind is None or device.index is None or device.type == "cpu" else f"{kind}.{device.index}"
    is_there = name in available or (name == kind and any(each.startswith(f"{kind}.") for each in available))
    if name is None or not is_there or (device.type == "cpu" and device.index):
        raise ValueError(
            f"OpenVINO does not compute on {device} here; it has {', '.join(available)}. Choose --device cpu."
        )
    return name


def read_model(core: Any, path: Path) -> tuple[Any, dict[str, Any]]:
    """
    Read an exported model, and the description that the export wrote into it.

    Raises:
        FileNotFoundError: If the file, or the one with its weights, does not exist.
        ValueError: If it is not an exported model.
    """
    for file in (path, path.with_suffix(".bin")):
        if not file.is_file():
            raise FileNotFoundError(f"There is no file {file}. An OpenVINO model is a pair of files, .xml and .bin.")
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise ValueError(f"{path} is not a model that OpenVINO can read: {error}") from error
    if not model.has_rt_info([DESCRIPTION]):
        raise ValueError(f"{path} was not written by `massformer export`.")
    return model, json.loads(model.get_rt_info([DESCRIPTION]).astype(str))
