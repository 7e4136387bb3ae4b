"""Write the graph around the network: from a photograph's bytes, and to its label map."""

from typing import Any

import numpy as np

from ..models.image_processing_massformer import MaSSFormerImageProcessor
from .libraries import onnx_exporter


# Number of queries read at once, whose masks exist at the photograph's size.
CHUNK = 4
IMAGE, CLASSES, MASKS, LABEL_MAP = "image", "class_queries_logits", "masks_queries_logits", "label_map"


class GraphWriter:
    """Writer of one part of an ONNX graph, node by node; attributes are named as in `onnx.GraphProto`."""

    def __init__(self, name: str):
        self.onnx, self.name = onnx_exporter(), name
        self.node: list[Any] = []
        self.initializer: list[Any] = []

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        name = f"{self.name}_constant_{len(self.initializer)}"
        self.initializer.append(self.onnx.numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def __call__(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = output or f"{self.name}_{len(self.node)}"
        self.node.append(self.onnx.helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output


def check_processor(processor: MaSSFormerImageProcessor):
    """
    Check that the graph can prepare photographs as the processor does.

    Raises:
        ValueError: If it cannot.
    """
    if processor.do_resize:
        raise ValueError(
            "The image processor resizes photographs (`do_resize`), but the graph takes them at their own size. Set "
            "`do_resize` to false in preprocessor_config.json."
        )
    if not processor.do_pad or processor.size_divisor % 32:
        raise ValueError(
            "The image processor must pad photographs to multiples of 32 (`do_pad`, `size_divisor`), got do_pad="
            f"{processor.do_pad} and size_divisor={processor.size_divisor}."
        )


def write_preparation(processor: MaSSFormerImageProcessor, dtype: int) -> GraphWriter:
    """
    Write the nodes before the network: from `image`, uint8 RGB of shape `(height, width, 3)`, to `pixel_values`.

    Args:
        processor ([`MaSSFormerImageProcessor`]): The image processor to reproduce.
        dtype (`int`): The network's type, an `onnx.TensorProto.DataType`.
    """
    add = GraphWriter("preparation")
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    mean = np.array(processor.image_mean if processor.do_normalize else [0.0] * 3)
    std = np.array(processor.image_std if processor.do_normalize else [1.0] * 3)
    pixels = add("Cast", IMAGE, to=add.onnx.TensorProto.FLOAT)
    pixels = add("Mul", pixels, add.constant(scale / std, np.float32))
    pixels = add("Sub", pixels, add.constant(mean / std, np.float32))
    pixels = add("Unsqueeze", add("Transpose", pixels, perm=[2, 0, 1]), add.constant([0]))

    divisor = add.constant([processor.size_divisor] * 2)
    lengths = add("Shape", IMAGE, start=0, end=2)
    missing = add("Mod", add("Sub", divisor, add("Mod", lengths, divisor)), divisor)
    pads = add("Concat", add.constant([0] * 6), missing, axis=0)
    add("Cast", add("Pad", pixels, pads), output="pixel_values", to=dtype)
    return add


def write_read_out(num_queries: int, num_labels: int) -> GraphWriter:
    """
    Write the nodes after the network: from the logits of all queries, and the photograph for its size, to `label_map`,
    uint8 of shape `(height, width)`. Scores are summed over a few queries at a time (MaskFormer, section 3.4), whose
    masks are resized once, bilinearly; the masks of all queries never exist at the photograph's size together.

    Args:
        num_queries (`int`): Number of queries.
        num_labels (`int`): Number of classes without "no object".
    """
    add = GraphWriter("read_out")
    to_float = {"to": add.onnx.TensorProto.FLOAT}
    probabilities = add("Softmax", add("Cast", CLASSES, **to_float), axis=-1)
    probabilities = add("Slice", probabilities, *(add.constant([x]) for x in (0, num_labels, 2)))
    # One column per query.
    probabilities = add("Transpose", add("Squeeze", probabilities, add.constant([0])), perm=[1, 0])

    twice, one_row_each = add.constant([1, 1, 2, 2], np.float32), add.constant([0, -1])
    scores = ""
    for first in range(0, num_queries, CHUNK):
        queries = [add.constant([x]) for x in (first, min(first + CHUNK, num_queries), 1)]
        masks = add("Cast", add("Slice", MASKS, *queries), **to_float)
        masks = add("Resize", masks, "", twice, mode="linear", coordinate_transformation_mode="half_pixel")
        masks = add("Reshape", add("Squeeze", add("Sigmoid", masks), add.constant([0])), one_row_each)
        some_scores = add("MatMul", add("Slice", probabilities, *queries), masks)
        scores = add("Add", scores, some_scores) if scores else some_scores

    labels = add("Cast", add("ArgMax", scores, axis=0, keepdims=0), to=add.onnx.TensorProto.UINT8)
    padded_lengths = add("Mul", add("Shape", MASKS, start=2), add.constant([2, 2]))
    lengths = add("Shape", IMAGE, start=0, end=2)
    labels = add("Reshape", labels, padded_lengths)
    add("Slice", labels, add.constant([0, 0]), lengths, add.constant([0, 1]), output=LABEL_MAP)
    return add


def photograph_graph(
    network: Any, processor: MaSSFormerImageProcessor, size: tuple[int, int] | None, queries: bool
) -> Any:
    """
    Build the complete graph, from a photograph to its label map or to the logits of all queries.

    Args:
        network (`onnx.ModelProto`): From `pixel_values` to class and mask logits, see [`export_network`].
        processor ([`MaSSFormerImageProcessor`]): Prepares photographs for it.
        size (`tuple[int, int]`, *optional*): Height and width of the photographs. By default the graph is dynamic.
        queries (`bool`): Whether to return the logits of the queries instead of label maps.

    Returns:
        `onnx.ModelProto`

    Raises:
        ValueError: If the graph cannot prepare photographs as the processor does.
    """
    check_processor(processor)
    helper, types = onnx_exporter().helper, onnx_exporter().TensorProto
    height, width = size or ("height", "width")
    image = helper.make_tensor_value_info(IMAGE, types.UINT8, [height, width, 3])
    parts = [write_preparation(processor, network.graph.input[0].type.tensor_type.elem_type), network.graph]
    outputs = list(network.graph.output)
    if not queries:
        num_queries, num_outputs = (dim.dim_value for dim in outputs[0].type.tensor_type.shape.dim[1:])
        parts.append(write_read_out(num_queries, num_outputs - 1))
        outputs = [helper.make_tensor_value_info(LABEL_MAP, types.UINT8, [height, width])]
    graph = helper.make_graph(
        [node for part in parts for node in part.node],
        "massformer",
        [image],
        outputs,
        [values for part in parts for values in part.initializer],
    )
    return helper.make_model(graph, opset_imports=network.opset_import, ir_version=network.ir_version)
