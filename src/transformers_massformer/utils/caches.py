"""Find writable folders for caches, in installations that are read-only or have no home."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path


def is_writable(folder: Path) -> bool:
    """Return whether files can be written to a folder, which is created if necessary."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def user_cache() -> Path:
    """Return the folder for caches of the user, who may have none."""
    home = Path(os.path.expanduser("~"))
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")


def temporary_cache(name: str) -> Path:
    """
    Return a folder for temporary files that later runs of the same user find again. If somebody else could write to
    it, who would then decide what is loaded from it, return a new one.

    Args:
        name (`str`): Name of the cache.
    """
    if hasattr(os, "getuid"):
        folder = Path(tempfile.gettempdir()) / f"massformer-{name}-{os.getuid()}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
            is_own = status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode)
            if is_own and not status.st_mode & 0o022 and is_writable(folder):
                return folder
    return Path(tempfile.mkdtemp(prefix=f"massformer-{name}-"))
