"""Write antialiased reductions of a graph as matrix products, for runtimes whose Resize has no antialiasing."""

from typing import Any

import numpy as np

from .photograph import GraphWriter


def write_reduction(add: GraphWriter, feature_map: str, sizes: str, output: str):
    """
    Write the bilinear, antialiased reduction of a map of shape `(1, channels, height, width)` to the two last of four
    `sizes`, as PyTorch computes it: means weighted by triangles whose half width is the reduction's factor.
    """
    to_float = {"to": add.onnx.TensorProto.FLOAT}
    zero, one = add.constant(0), add.constant(1)

    def centers(length: str) -> str:
        numbers = add("Range", zero, add("Squeeze", length, add.constant([0])), one)
        return add("Add", add("Cast", numbers, **to_float), add.constant(0.5, np.float32))

    for axis in (2, 3):
        length = add("Shape", feature_map, start=axis, end=axis + 1)
        reduced = add("Slice", sizes, add.constant([axis]), add.constant([axis + 1]), add.constant([0]))
        factor = add("Div", add("Cast", length, **to_float), add("Cast", reduced, **to_float))
        middles = add("Unsqueeze", add("Mul", centers(reduced), factor), add.constant([1]))
        half_width = add("Max", factor, add.constant([1.0], np.float32))
        distances = add("Div", add("Abs", add("Sub", centers(length), middles)), half_width)
        weights = add("Relu", add("Sub", add.constant(1.0, np.float32), distances))
        weights = add("Div", weights, add("ReduceSum", weights, add.constant([1]), keepdims=1))
        if axis == 2:
            feature_map = add("MatMul", weights, feature_map)
        else:
            add("MatMul", feature_map, add("Transpose", weights, perm=[1, 0]), output=output)


def without_antialiasing(model: Any) -> Any:
    """Return a model whose antialiased reductions are matrix products."""
    found = type(model)()
    found.CopyFrom(model)
    del found.graph.node[:]
    for index, node in enumerate(model.graph.node):
        if node.op_type == "Resize" and any(each.name == "antialias" and each.i for each in node.attribute):
            add = GraphWriter(f"reduction_{index}")
            write_reduction(add, node.input[0], node.input[3], node.output[0])
            found.graph.node.extend(add.node)
            found.graph.initializer.extend(add.initializer)
        else:
            found.graph.node.append(node)
    return found
