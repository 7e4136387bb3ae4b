"""Files on this machine and in remote storage (s3://, gs:// and so on), through pyarrow's file systems."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..utils.files import written_whole


def is_remote(address: str) -> bool:
    """Tell whether an address is a URI such as s3://bucket/folder, and not a path on this machine."""
    return "://" in address


@functools.lru_cache(maxsize=64)
def open_storage(address: str) -> tuple[Any, str]:
    """
    Return the file system (`pyarrow.fs.FileSystem`) of an address, and the path in it.

    Raises:
        OSError: If it cannot be reached.
        ValueError: If pyarrow knows no such file system.
    """
    from pyarrow import fs

    if not is_remote(address):
        return fs.LocalFileSystem(), str(Path(address).absolute())
    try:
        return fs.FileSystem.from_uri(address)
    except ValueError as error:
        raise ValueError(
            f"{address} cannot be opened: {error}. pyarrow reads file://, s3://, gs://, hdfs:// and abfs://."
        ) from error
    except OSError as error:
        raise OSError(f"{address} cannot be opened: {error}") from error


class Addresses:
    """Splits many URIs into file system and path, and connects once per bucket or host."""

    def __init__(self):
        self.known: dict[tuple[str, str, str], tuple[str, str]] = {}

    def split(self, address: str) -> tuple[str, str]:
        """Return an address that [`open_storage`] takes, the same for all files of a bucket, and the file's path."""
        parts = urlsplit(address)
        inside = unquote(parts.path).lstrip("/")
        key = parts.scheme, parts.netloc, parts.query
        if key not in self.known:
            _, path = open_storage(address)
            self.known[key] = address, path.removesuffix(inside)
        root, prefix = self.known[key]
        return root, prefix + inside


class Folder:
    """
    A folder for results, on this machine or in remote storage.

    Args:
        address (`str`): Path or URI.
    """

    def __init__(self, address: str):
        self.address = address
        self.storage, self.root = open_storage(address)

    def path(self, name: str) -> str:
        """Return the path of a file in the file system."""
        return f"{self.root.rstrip('/')}/{name}"

    def names(self, suffix: str) -> list[str]:
        """Return the sorted names of the folder's files with a suffix, without hidden ones."""
        from pyarrow import fs

        found = self.storage.get_file_info(fs.FileSelector(self.root, allow_not_found=True))
        names = (info.base_name for info in found if info.type == fs.FileType.File)
        return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or `None` if there is none."""
        from pyarrow import fs

        if self.storage.get_file_info(self.path(name)).type != fs.FileType.File:
            return None
        with self.storage.open_input_file(self.path(name)) as file:
            return file.read()

    def remove(self, name: str):
        """Remove a file, if it exists."""
        if name in self.names(name):
            self.storage.delete_file(self.path(name))

    @contextlib.contextmanager
    def writing(self, name: str) -> Generator[Path]:
        """
        Yield a temporary path on this machine. At the end of the block the file appears in the folder, complete; if
        the block fails, it does not.
        """
        if not is_remote(self.address):
            with written_whole(self.path(name)) as partial:
                yield partial
            return
        from pyarrow import fs

        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder) / name
            yield partial
            self.storage.create_dir(self.root)
            # Not every file system hides a file until it is complete; hidden ones are not read.
            hidden = self.path(f".{name}.partial")
            try:
                fs.copy_files(str(partial), hidden, fs.LocalFileSystem(), self.storage)
                self.storage.move(hidden, self.path(name))
            except BaseException:
                with contextlib.suppress(OSError):
                    self.storage.delete_file(hidden)
                raise
