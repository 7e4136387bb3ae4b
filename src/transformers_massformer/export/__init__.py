"""Export MaSSFormer to ONNX and OpenVINO, and segment with exported models in their runtimes."""

from .check import Agreement
from .job import ExportOptions, export_model
from .runtime import ExportedPredictor, is_exported


__all__ = ["Agreement", "ExportOptions", "ExportedPredictor", "export_model", "is_exported"]
