"""
How long a photograph takes an ONNX model and how much memory, in a process that has nothing else loaded:
python measurement.py MODEL PHOTOGRAPH.npy. Writes JSON.
"""

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime


def peak_bytes() -> int | None:
    """The most memory that this process has had."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(ImportError):
        import resource

        # macOS counts bytes, others kilobytes.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None


def main():
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    photo = np.load(sys.argv[2])
    start = time.perf_counter()
    session.run(None, {"image": photo})
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
