"""
Measure the time and memory that a photograph takes an ONNX model, in a process with nothing else loaded:
python measurement.py MODEL PHOTOGRAPH.npy. Prints JSON.
"""

import json
import runpy
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime


# Loaded by its path: importing the package would load PyTorch, whose memory would count.
resident_peak = runpy.run_path(str(Path(__file__).parents[1] / "utils" / "process_memory.py"))["resident_peak"]


def main():
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    photo = np.load(sys.argv[2])
    start = time.perf_counter()
    session.run(None, {"image": photo})
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_bytes": resident_peak()}))


if __name__ == "__main__":
    main()
