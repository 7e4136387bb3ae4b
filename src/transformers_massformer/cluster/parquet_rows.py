"""Photographs in the rows of Parquet files: columns of paths, of image bytes, or of both as `datasets` writes them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from .storage import open_storage


SUFFIX = ".parquet"
# Columns looked for without --image-column, and columns with names of photographs beside their bytes.
IMAGE_COLUMNS = ("image", "bytes", "path", "file_name")
NAME_COLUMNS = ("path", "file_name")
PATH, BYTES, STRUCT = "path", "bytes", "struct"


@dataclass(frozen=True)
class Column:
    """
    The column with the photographs.

    Attributes:
        name (`str`): Its name.
        kind (`str`): `"path"`: text; `"bytes"`: files; `"struct"`: files and their names, as `datasets` writes images.
    """

    name: str
    kind: str


def find_column(schema: Any, asked: str | None, file: str) -> Column:
    """
    Return the column of a Parquet file that holds photographs.

    Args:
        schema (`pyarrow.Schema`): Its schema.
        asked (`str`, *optional*): Name of the column. By default, the first of image, bytes, path and file_name.
        file (`str`): The file, for errors.

    Raises:
        ValueError: If there is no such column, or it holds neither paths nor images.
    """
    from pyarrow import types

    name = asked or next((each for each in IMAGE_COLUMNS if each in schema.names), "")
    if name not in schema.names:
        wanted = asked or ", ".join(IMAGE_COLUMNS)
        raise ValueError(
            f"{file} has no column {wanted}, only {', '.join(schema.names)}. Name the one with the photographs with "
            "--image-column."
        )
    found = schema.field(name).type
    if types.is_string(found) or types.is_large_string(found):
        return Column(name, PATH)
    if types.is_binary(found) or types.is_large_binary(found):
        return Column(name, BYTES)
    if types.is_struct(found) and found.get_field_index("bytes") >= 0:
        return Column(name, STRUCT)
    raise ValueError(
        f"{file}: column {name} holds {found}, neither paths nor bytes of images. Name another with --image-column."
    )


@functools.lru_cache(maxsize=1)
def open_parquet(root: str, path: str) -> Any:
    """Return a `pyarrow.parquet.ParquetFile`; its footer is read, and the last one stays open."""
    import pyarrow.parquet

    storage, _ = open_storage(root)
    try:
        return pyarrow.parquet.ParquetFile(storage.open_input_file(path))
    except ValueError as error:
        raise ValueError(f"{path} is not a Parquet file: {error}") from error


def read_names(file: Any, column: Column) -> Iterator[str | None]:
    """Yield, for each row, its path or the name of the image in it, `None` without one."""
    if column.kind == STRUCT:
        has_path = file.schema_arrow.field(column.name).type.get_field_index("path") >= 0
        wanted = [f"{column.name}.path"] if has_path else []
    elif column.kind == PATH:
        wanted = [column.name]
    else:
        wanted = [name for name in NAME_COLUMNS if name in file.schema_arrow.names][:1]
    if not wanted:
        yield from [None] * file.metadata.num_rows
        return
    for batch in file.iter_batches(columns=wanted, batch_size=10_000):
        values = batch.column(0).to_pylist()
        yield from (value["path"] if isinstance(value, dict) else value for value in values)


def safe_name(name: Any, row: int) -> PurePosixPath:
    """Return a relative path for a row's results: its name without a root and steps upwards, or its number."""
    parts = [part for part in PurePosixPath(str(name or "")).parts if part not in ("/", "..", ".")]
    return PurePosixPath(*parts) if parts else PurePosixPath(f"{row:08d}")


class RowReader:
    """Reads images out of rows; rows that follow each other in a row group are read once."""

    def __init__(self):
        # File, column and row group of the rows, and the number of the next one.
        self.place: tuple[Any, ...] = ()
        self.next_row = 0
        self.rows: Iterator[Any] = iter(())

    def read(self, root: str, path: str, column: Column, row: int) -> bytes:
        """
        Return the file in a row.

        Raises:
            OSError: If the Parquet file cannot be read.
            ValueError: If it has no such row, or no image in it.
        """
        file = open_parquet(root, path)
        group, first = group_of(file, row)
        if self.place != (root, path, column, group) or self.next_row > row:
            batches = file.iter_batches(batch_size=1, row_groups=[group], columns=[column.name])
            self.rows = (value for batch in batches for value in batch.column(0).to_pylist())
            self.place, self.next_row = (root, path, column, group), first
        value = next(itertools.islice(self.rows, row - self.next_row, None))
        self.next_row = row + 1
        found = value["bytes"] if isinstance(value, dict) else value
        if not found:
            raise ValueError(f"{path}: row {row} has no image in column {column.name}.")
        return found


def group_of(file: Any, row: int) -> tuple[int, int]:
    """Return the row group that a row belongs to, and the first row of it."""
    first = 0
    for group in range(file.metadata.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if row < first + count:
            return group, first
        first += count
    raise ValueError(f"The Parquet file has {first} rows, none with number {row}. It has changed; run the job again.")
