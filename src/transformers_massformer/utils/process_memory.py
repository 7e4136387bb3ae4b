"""Peak memory of this process. Imports the standard library only, so that small scripts can load it alone."""

import contextlib
import sys
from pathlib import Path


def reset_resident_peak():
    """Forget the peak so far, where the system allows it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_peak() -> int | None:
    """Return the largest resident memory of this process in bytes; `None` on systems that do not tell (Windows)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(ImportError):
        import resource

        # macOS counts bytes, other systems kilobytes.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None
