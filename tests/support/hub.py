"""The published folders, built once for all tests."""

import os
from pathlib import Path

from filelock import FileLock

from support.commands import run_python


def build_hub(output: Path) -> Path:
    """Build the folders with the script, in a process of its own."""
    run_python("scripts/build_hub.py", "--output", output)
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
