"""Measure the peak memory of this process. Imports only the standard library, so scripts can load the file alone."""

import contextlib
import sys
from pathlib import Path


def reset_resident_peak():
    """Reset the peak, where the system allows it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def resident_peak() -> int | None:
    """Return the peak resident memory of this process in bytes, or `None` where it is unavailable (Windows)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(ImportError):
        import resource

        # macOS counts bytes, other systems kilobytes.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None
