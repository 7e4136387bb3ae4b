"""Find photographs on this machine, in remote storage and in Parquet files, and bring each to its process."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..models.photo_headers import PHOTO_SUFFIXES
from ..segmenting.jobs import Job, Remote
from .parquet_rows import PATH, SUFFIX, Column, RowReader, find_column, open_parquet, read_names, safe_name
from .storage import Addresses, is_remote, open_storage


@dataclass
class Photographs:
    """
    Photographs to segment.

    Attributes:
        photos (`list[tuple[Path, Path]]`): The path of each, and where its results belong in the output folder.
        remotes (`dict[Path, Remote]`): Where those are that are not files of their own on this machine, by path.
        column ([`Column`], *optional*): The column of images in Parquet files.
    """

    photos: list[tuple[Path, Path]] = field(default_factory=list)
    remotes: dict[Path, Remote] = field(default_factory=dict)
    column: Column | None = None

    def add(self, photo: Path, relative: Path | PurePosixPath, remote: Remote | None = None):
        """Add a photograph; one that is there already is not added twice."""
        if remote is not None:
            if photo in self.remotes:
                return
            self.remotes[photo] = remote
        self.photos.append((photo, Path(relative)))


def find_photographs(
    arguments: Iterable[str], image_column: str | None, find_local: Callable[[list[str]], list[tuple[Path, Path]]]
) -> Photographs:
    """
    Find the photographs that arguments name.

    Args:
        arguments (`Iterable[str]`): Paths and globs, URIs of files and folders, and Parquet files or folders of them.
        image_column (`str`, *optional*): Column of Parquet files, see [`find_column`].
        find_local (`Callable`): Finds photographs on this machine, as for a single one.

    Raises:
        FileNotFoundError: If an argument names no photographs.
        OSError: If a storage cannot be reached.
        ValueError: If a URI or a Parquet file cannot be read, or Parquet files have columns of different kinds.
    """
    found, local = Photographs(), []
    for argument in arguments:
        if is_remote(argument):
            add_remote(argument, image_column, found)
        elif tables := local_tables(Path(argument).expanduser()):
            add_rows(argument, [str(path.absolute()) for path in tables], image_column, found)
        else:
            local.append(argument)
    if local:
        known = {photo for photo, _ in found.photos}
        # Processes have working folders of their own.
        photos = [(photo.absolute(), relative) for photo, relative in find_local(local)]
        found.photos += [(photo, relative) for photo, relative in photos if photo not in known]
    if image_column is not None and found.column is None:
        raise ValueError("--image-column has no effect without a Parquet file among the photographs; leave it out.")
    return found


def local_tables(path: Path) -> list[Path]:
    """Return a Parquet file, or those directly in a folder."""
    if path.is_dir():
        return sorted(each for each in path.glob(f"*{SUFFIX}") if not each.name.startswith("."))
    return [path] if path.suffix == SUFFIX and path.exists() else []


def add_remote(address: str, image_column: str | None, found: Photographs):
    """Add a photograph, those of a folder, or those in Parquet files, in remote storage."""
    from pyarrow import fs

    storage, root = open_storage(address)
    info = storage.get_file_info(root)
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError(f"There is nothing at {address}.")
    if info.type == fs.FileType.File:
        infos, base = [info], PurePosixPath(root).parent
    else:
        base = PurePosixPath(root)
        listed = storage.get_file_info(fs.FileSelector(root, recursive=True))
        infos = sorted((each for each in listed if each.type == fs.FileType.File), key=lambda each: each.path)
        infos = [each for each in infos if not is_hidden(PurePosixPath(each.path).relative_to(base))]
    tables = [each.path for each in infos if each.path.endswith(SUFFIX)]
    if tables:
        add_rows(address, tables, image_column, found)
        return
    is_named = info.type == fs.FileType.File
    photos = [each for each in infos if is_named or PurePosixPath(each.path).suffix.lower() in PHOTO_SUFFIXES]
    if not photos:
        raise FileNotFoundError(f"{address} names no photographs ({', '.join(PHOTO_SUFFIXES)}).")
    for each in photos:
        remote = Remote(address, each.path, version_of(each))
        found.add(Path(str(remote)), PurePosixPath(each.path).relative_to(base), remote)


def is_hidden(path: PurePosixPath) -> bool:
    """Tell whether a file or a folder around it is hidden."""
    return any(part.startswith(".") for part in path.parts)


def version_of(info: Any) -> str:
    """Return what tells that a file in remote storage has changed, which is not read for that: size and time."""
    return f"{info.size}-{info.mtime_ns}"


def add_rows(address: str, tables: list[str], image_column: str | None, found: Photographs):
    """Add the photographs in Parquet files."""
    root = address if is_remote(address) else ""
    storage, _ = open_storage(root)
    for path in tables:
        file = open_parquet(root, path)
        column = find_column(file.schema_arrow, image_column, path)
        if found.column not in (None, column):
            raise ValueError(f"{path}: column {column.name} differs in kind or name from those of the other files.")
        found.column = column
        names = enumerate(read_names(file, column))
        if column.kind == PATH:
            add_listed(root, path, [name for _, name in names if name], found)
            continue
        version, folder = version_of(storage.get_file_info(path)), PurePosixPath(path).stem
        for row, name in names:
            remote = Remote(root, path, version, row)
            inside = safe_name(name, row)
            found.add(Path(str(remote)) / inside.name, folder / inside, remote)


def add_listed(root: str, table: str, names: Iterable[str], found: Photographs):
    """Add the photographs whose paths a Parquet file lists; relative ones start at its folder."""
    addresses, remotes = Addresses(), []
    folder = PurePosixPath(table).parent
    known = {photo for photo, _ in found.photos}
    for name in names:
        if is_remote(name):
            remotes.append((name, *addresses.split(name)))
        elif root:
            remotes.append((name, root, str(folder / name)))
        elif (photo := Path(folder / name)) not in known:
            known.add(photo)
            found.add(photo, safe_name(name, 0))
    for name, storage_root, path, version in with_versions(remotes):
        remote = Remote(storage_root, path, version)
        found.add(Path(str(remote)), safe_name(path if is_remote(name) else name, 0), remote)


def with_versions(remotes: list[tuple[str, str, str]]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, root, path and version of files, asking each storage for a thousand at a time."""
    by_root: dict[str, list[tuple[str, str]]] = {}
    for name, root, path in remotes:
        by_root.setdefault(root, []).append((name, path))
    for root, files in by_root.items():
        storage, _ = open_storage(root)
        for start in range(0, len(files), 1000):
            some = files[start : start + 1000]
            infos = storage.get_file_info([path for _, path in some])
            for (name, path), info in zip(some, infos, strict=True):
                # Missing ones fail one by one, when they are read.
                yield name, root, path, version_of(info)


@dataclass
class Fetcher:
    """
    Brings photographs to this machine, one after the other.

    Args:
        column ([`Column`], *optional*): The column of images in Parquet files.
    """

    column: Column | None = None
    rows: RowReader = field(default_factory=RowReader)

    @contextlib.contextmanager
    def fetched(self, job: Job) -> Generator[Path]:
        """
        Yield the path of a job's photograph on this machine for the duration of a block.

        Raises:
            OSError: If it cannot be read.
            ValueError: If a row of a Parquet file has no image.
        """
        if job.remote is None:
            yield job.photo
            return
        with tempfile.TemporaryDirectory(prefix="massformer-") as folder:
            file = Path(folder) / job.photo.name
            file.write_bytes(self.content(job.remote))
            yield file

    def content(self, remote: Remote) -> bytes:
        """Return the bytes of a photograph's file."""
        if remote.row is not None and self.column is not None:
            return self.rows.read(remote.root, remote.path, self.column, remote.row)
        storage, _ = open_storage(remote.root)
        with storage.open_input_file(remote.path) as file:
            return file.read()
