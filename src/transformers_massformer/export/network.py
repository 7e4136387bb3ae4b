"""Export the network as an ONNX graph: normalised pixels in, queries out."""

import contextlib
import logging
import warnings
from typing import Any

import torch
import torchvision  # noqa: F401 (registers the operator that is translated)
from torch import nn
from transformers import PreTrainedModel

from ..models.deform_conv import ModulatedDeformConv2d
from ..models.modeling_massformer import MaSSFormerForSemanticSegmentation
from .libraries import onnx_exporter


# ONNX has deformable convolution since opset 19; ONNX Runtime's CPU kernels are those of opsets 19 and 22.
OPSETS, PLAIN_OPSETS = range(19, 24), range(18, 24)
# Sides of the input during tracing; other multiples of 32 give the same graph.
TRACED_SIZE = (160, 192)
LARGEST_SIDE = 2**16
STRIDE = 32


class QueryNetwork(nn.Module):
    """Network from pixel values to the class and mask logits of all queries, as a tuple."""

    def __init__(self, model: MaSSFormerForSemanticSegmentation):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.model(pixel_values)
        return outputs.class_queries_logits, outputs.masks_queries_logits


class FixedPaddingConv2d(nn.Module):
    """Convolution with a fixed, possibly uneven padding, independent of the input's size."""

    def __init__(self, convolution: nn.Conv2d, padding: tuple[int, int, int, int]):
        super().__init__()
        self.pad = nn.ZeroPad2d(padding)
        self.convolution = nn.utils.skip_init(
            nn.Conv2d,
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,
            convolution.stride,
            dilation=convolution.dilation,
            groups=convolution.groups,
            bias=convolution.bias is not None,
        )
        self.convolution.weight, self.convolution.bias = convolution.weight, convolution.bias

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.convolution(self.pad(hidden_states))


def fix_padding(module: nn.Module):
    """
    Replace, in place, timm's convolutions that derive their padding from the input's size as TensorFlow does. In a
    MaSSFormer backbone sizes are multiples of the strides, so the padding is constant; left symbolic, the sizes of a
    dynamic graph grow into expressions that take hours to export.
    """
    try:
        from timm.layers import Conv2dSame
    except ImportError:
        return
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame):
            height, width = (
                max(0, (side - 1) * dilation + 1 - stride)
                for side, stride, dilation in zip(child.kernel_size, child.stride, child.dilation, strict=True)
            )
            padding = (width // 2, width - width // 2, height // 2, height - height // 2)
            setattr(module, name, FixedPaddingConv2d(child, padding))
        else:
            fix_padding(child)


def use_plain_operators(model: nn.Module):
    """Compute deformable convolutions by grid sampling, in place."""
    for module in model.modules():
        if isinstance(module, ModulatedDeformConv2d):
            module.engine = "grid_sample"


def deform_conv_translation() -> dict[Any, Any]:
    """Return the translation of torchvision's operator to ONNX."""
    from onnxscript import opset19 as op

    # The exporter reads the types of the arguments from these annotations.
    def deform_conv2d(
        hidden_states,
        weight,
        offsets,
        modulation,
        bias,
        stride_h: int,
        stride_w: int,
        pad_h: int,
        pad_w: int,
        dilation_h: int,
        dilation_w: int,
        groups: int,
        offset_groups: int,
        use_mask: bool,
    ):
        return op.DeformConv(
            hidden_states,
            weight,
            offsets,
            bias,
            modulation if use_mask else None,
            kernel_shape=[int(side) for side in weight.shape[2:]],
            strides=[stride_h, stride_w],
            pads=[pad_h, pad_w, pad_h, pad_w],
            dilations=[dilation_h, dilation_w],
            group=groups,
            offset_group=offset_groups,
        )

    return {torch.ops.torchvision.deform_conv2d.default: deform_conv2d}


@contextlib.contextmanager
def quietly():
    """Silence the exporter's warnings, which concern its own internals."""
    scripted = logging.getLogger("onnxscript")
    level = scripted.level
    scripted.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        scripted.setLevel(level)


def without_traces(model: Any) -> Any:
    """Remove the exporter's records of the Python code, which are larger than the graph."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    return model


def export_network(model: PreTrainedModel, opset: int, size: tuple[int, int] | None, plain_operators: bool) -> Any:
    """
    Export the network, from `pixel_values` of shape `(1, channels, height, width)` to `class_queries_logits` and
    `masks_queries_logits`, in the model's dtype.

    Args:
        model (`PreTrainedModel`): A [`MaSSFormerForSemanticSegmentation`] on the CPU. It is modified for the export.
        opset (`int`): Version of ONNX's operators.
        size (`tuple[int, int]`, *optional*): Height and width, multiples of 32. By default the graph is dynamic.
        plain_operators (`bool`): Whether to write deformable convolutions as grid sampling.

    Returns:
        `onnx.ModelProto`

    Raises:
        ImportError: If onnx or onnxscript is not installed.
        ValueError: If the model is not a MaSSFormer, the opset lacks its operators, or the export fails.
    """
    if not isinstance(model, MaSSFormerForSemanticSegmentation):
        raise ValueError(f"Only MaSSFormer can be exported to ONNX, not models of type {model.config.model_type}.")
    supported = PLAIN_OPSETS if plain_operators else OPSETS
    if opset not in supported:
        raise ValueError(
            f"Opset {opset} cannot hold the model{'' if plain_operators else ' with deformable convolutions'}; choose "
            f"one from {supported[0]} to {supported[-1]}."
        )
    onnx_exporter()
    fix_padding(model)
    if plain_operators:
        use_plain_operators(model)
    # With gradients, activations could not work in place.
    model.requires_grad_(False)
    network = QueryNetwork(model).eval()
    height, width = size or TRACED_SIZE
    example = torch.zeros(
        1, getattr(model.config.backbone_config, "num_channels", 3), height, width, dtype=model.dtype
    )
    dynamic_shapes = None
    if size is None:
        largest = LARGEST_SIDE // STRIDE
        rows, columns = (torch.export.Dim(name, min=2, max=largest) for name in ("rows", "columns"))
        dynamic_shapes = {"pixel_values": {2: STRIDE * rows, 3: STRIDE * columns}}
    try:
        with quietly(), torch.no_grad():
            program: Any = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                dynamic_shapes=dynamic_shapes,
                custom_translation_table=deform_conv_translation(),
                input_names=["pixel_values"],
                output_names=["class_queries_logits", "masks_queries_logits"],
            )
    except (RuntimeError, ValueError) as error:
        remedy = "Leave out --dynamic: graphs for one size are simpler." if size is None else "Try another --opset."
        raise ValueError(f"The network cannot be exported to ONNX opset {opset}: {error} {remedy}") from error
    return without_traces(program.model_proto)
