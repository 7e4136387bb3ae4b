"""
Measure the time and memory that a photograph takes an exported model, in a process with nothing else loaded:
python measurement.py MODEL PHOTOGRAPH.npy [PRECISION]. Prints JSON.
"""

import json
import runpy
import sys
import time
from pathlib import Path

import numpy as np


# Loaded by its path: importing the package would load PyTorch, whose memory would count.
resident_peak = runpy.run_path(str(Path(__file__).parents[1] / "utils" / "process_memory.py"))["resident_peak"]


def run_onnx(path: str, photo: np.ndarray) -> float:
    """Run an ONNX file and return the seconds that it took."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    start = time.perf_counter()
    session.run(None, {"image": photo})
    return time.perf_counter() - start


def run_openvino(path: str, photo: np.ndarray, precision: str) -> float:
    """Run an OpenVINO model and return the seconds that it took, once compiled for the photograph's size."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(photo.shape))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    start = time.perf_counter()
    compiled.create_infer_request().infer({"image": photo})
    return time.perf_counter() - start


def main():
    path, photo, *precision = sys.argv[1], np.load(sys.argv[2]), *sys.argv[3:], "f32"
    seconds = run_openvino(path, photo, precision[0]) if path.endswith(".xml") else run_onnx(path, photo)
    print(json.dumps({"seconds": seconds, "peak_bytes": resident_peak()}))


if __name__ == "__main__":
    main()
