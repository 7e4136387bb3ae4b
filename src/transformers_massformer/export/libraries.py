"""Import the optional dependencies of the export and of exported models."""

from types import ModuleType

from ..utils.extras import require


def onnx_exporter() -> ModuleType:
    """
    Import `onnx`, and check for onnxscript, with which PyTorch writes ONNX.

    Raises:
        MissingExtraError: If one of them is not installed.
    """
    require("onnxscript", "onnx", "The export")
    require("onnx.compose", "onnx", "The export")
    return require("onnx", "onnx", "The export")


def onnx_runtime() -> ModuleType:
    """
    Import `onnxruntime`.

    Raises:
        MissingExtraError: If it is not installed.
    """
    return require("onnxruntime", "onnx", "An ONNX model")
