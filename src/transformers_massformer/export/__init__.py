"""Export MaSSFormer to ONNX, and segment with exported models through ONNX Runtime."""

from .check import Agreement
from .job import ExportOptions, export_onnx
from .runtime import OnnxPredictor, is_onnx


__all__ = ["Agreement", "ExportOptions", "OnnxPredictor", "export_onnx", "is_onnx"]
