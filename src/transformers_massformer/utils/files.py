"""Write files and folders that are either complete or unchanged, even if a run is interrupted or two run at once."""

import contextlib
import errno
import functools
import hashlib
import itertools
import os
import re
import secrets
import shutil
import socket
import time
import unicodedata
from collections.abc import Generator
from pathlib import Path

import psutil


# Characters of a file's name in its temporary name, which must not exceed what file systems accept.
NAME_LENGTH = 40
# Age in seconds from which the temporary files of other machines, whose processes are unknown here, are left over.
STALE_SECONDS = 86_400
HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
# Tells this process from earlier ones with the same number, as in containers.
RUN = secrets.token_hex(4)
PARTIAL = re.compile(r"\..*\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<run>[0-9a-f]{8})-\d+\.partial", re.DOTALL)
COUNTER = itertools.count()
# What systems answer when a folder gets the name of a folder that contains files.
TAKEN = {errno.EEXIST, errno.ENOTEMPTY}


# Names that Windows reserves for devices, whatever follows a dot.
RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)


def file_name(label: str) -> str:
    """
    Turn the name of a class or a photo into a file name without suffix that every file system takes. Different names
    may give the same one; `utils.names.file_names` refuses that.
    """
    name = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", label))
    # Dots at the ends make hidden files, "..", or are dropped by Windows.
    name = re.sub(r"^\.+|\.+$", "_", name)
    return RESERVED.sub(r"\1_", name)


def partial_path(path: Path) -> Path:
    """Return a path in the same folder, which no other call returns, for writing a file until it is complete."""
    return path.with_name(f".{path.name[:NAME_LENGTH]}.{HOST}-{os.getpid()}-{RUN}-{next(COUNTER)}.partial")


def is_running(pid: int) -> bool:
    """Return whether there is a process of this number; one that has ended and was not waited for does not count."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def is_left_over(partial: Path) -> bool:
    """Return whether the process that wrote a temporary file or folder has ended."""
    match = PARTIAL.fullmatch(partial.name)
    if match is None:
        return False
    if match["host"] != HOST:
        return time.time() - partial.stat().st_mtime > STALE_SECONDS
    if int(match["pid"]) == os.getpid():
        return match["run"] != RUN
    return not is_running(int(match["pid"]))


def remove(path: Path):
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_left_overs(folder: Path):
    """Remove what killed processes left in a folder."""
    for partial in folder.glob(".*.partial"):
        # Another process may be doing the same.
        with contextlib.suppress(OSError):
            if is_left_over(partial):
                remove(partial)


@functools.cache
def tidy(folder: Path):
    """Remove what killed processes left in a folder, once per folder."""
    remove_left_overs(folder)


def new_partial(path: Path) -> Path:
    """Return the temporary path of a file or folder, whose parent is created and tidied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tidy(path.parent.absolute())
    return partial_path(path)


@contextlib.contextmanager
def written_whole(path: str | Path) -> Generator[Path]:
    """
    Yield a temporary path in the same folder, which is created if necessary. At the end of the block the temporary
    file replaces `path`; if the block fails, it is removed and `path` stays unchanged. Of several processes, the last
    to finish wins.

    Args:
        path (`str` or `Path`): The file to write.
    """
    path = Path(path)
    partial = new_partial(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        remove(partial)


@contextlib.contextmanager
def folder_written_whole(path: Path) -> Generator[Path]:
    """
    Yield a new, empty folder beside `path`, which it replaces at the end of the block. If the block fails, it is
    removed and `path` stays unchanged. Of several processes, the last to finish wins.

    Args:
        path (`Path`): The folder to write.
    """
    partial = new_partial(path)
    partial.mkdir()
    try:
        yield partial
        replace_folder(partial, path)
    finally:
        remove(partial)


def replace_folder(source: Path, target: Path):
    """Give a folder the name of another, which is removed; no system replaces a folder with files in one step."""
    while True:
        old = partial_path(target)
        with contextlib.suppress(FileNotFoundError):
            target.rename(old)
        try:
            source.rename(target)
        except OSError as error:
            if error.errno in TAKEN:
                # Another process has put its own folder there between the two steps.
                continue
            with contextlib.suppress(OSError):
                old.rename(target)
            raise
        else:
            return
        finally:
            remove(old)


def link_or_copy(source: Path, target: Path):
    """Give a photograph a second name, or copy it where the file system has no hard links between the two."""
    with written_whole(target) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), partial)
        except OSError:
            shutil.copyfile(source, partial)
