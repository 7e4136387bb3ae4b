"""The published folders, built once for all tests."""

import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock


ROOT = Path(__file__).parents[2]


def build_hub(output: Path) -> Path:
    """Build the folders with the script, in a process of its own."""
    command = [sys.executable, "scripts/build_hub.py", "--output", str(output)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return output


def shared_hub(base: Path) -> Path:
    """
    Return the folder of the session's build; the first of pytest-xdist's workers to need it builds it.

    Args:
        base (`Path`): Base folder of this process's temporary files.
    """
    # Workers have a folder each, within the session's.
    session = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(session / "hub.lock"):
        if not (session / "hub").is_dir():
            build_hub(session / "hub-unfinished").rename(session / "hub")
    return session / "hub"
