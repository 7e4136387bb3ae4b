"""What the export and its use need beside PyTorch, imported where it is used."""

from typing import Any


REMEDY = "pip install 'transformers-massformer[onnx]'"


def onnx_exporter() -> Any:
    """
    The `onnx` package.

    Raises:
        ImportError: If it, or onnxscript, with which PyTorch writes ONNX, is not installed.
    """
    try:
        import onnx
        import onnx.compose
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"The export needs onnx and onnxscript: {REMEDY}") from error
    return onnx


def onnx_runtime() -> Any:
    """
    The `onnxruntime` package.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"ONNX models need onnxruntime: {REMEDY}") from error
    return onnxruntime
