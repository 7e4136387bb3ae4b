"""Read and write tables as CSV files, also those that a spreadsheet has saved."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .files import written_whole


# Separators of spreadsheets, by country; tabs for "Text" and "Unicode Text".
SEPARATORS = (",", ";", "\t")
# First bytes of files that Excel saves as "Unicode Text".
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def decode(content: bytes) -> str:
    """Decode a CSV file: UTF-8, with a byte order mark or without, or UTF-16. Other bytes of file names are kept."""
    if content.startswith(UTF_16):
        return content.decode("utf-16")
    return content.decode("utf-8-sig", errors="surrogateescape")


def read_table(path: Path, needed: Sequence[str], what: str) -> list[tuple[int, dict[str, str]]]:
    """
    Read the rows of a CSV file. Columns may be in any order; separators may be commas, semicolons or tabs; empty rows,
    and columns without a title, are skipped.

    Args:
        path (`Path`): The file.
        needed (`Sequence[str]`): Columns that it must have.
        what (`str`): Kind of the table, used in errors.

    Returns:
        `list[tuple[int, dict[str, str]]]`: The number of the line on which each row ends, and its values by column.
        Values that a row lacks are empty.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read, lacks a column, or has one twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no {what} at {path}.")
    try:
        text = decode(path.read_bytes())
    except UnicodeError as error:
        raise ValueError(f"{path} is not a {what}: {error}. Save it as CSV in UTF-8.") from error
    # Excel may name the separator in a line of its own.
    hint = re.match(r"sep=(.)\r?\n", text, re.IGNORECASE)
    text = text[hint.end() :] if hint else text
    separator = hint[1] if hint else max(SEPARATORS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        titles = [title.strip() for title in next(reader, [])]
        missing = [name for name in needed if name not in titles]
        if missing:
            raise ValueError(f"{path} is not a {what}: it lacks the columns {', '.join(sorted(missing))}.")
        twice = sorted({title for title in titles if title and titles.count(title) > 1})
        if twice:
            raise ValueError(f"{path} has the columns {', '.join(twice)} twice. Remove one of each.")
        rows = []
        for values in reader:
            if any(value.strip() for value in values):
                padded = [*values, *[""] * (len(titles) - len(values))]
                row = {title: value for title, value in zip(titles, padded, strict=False) if title}
                rows.append((reader.line_num + (hint is not None), row))
    except csv.Error as error:
        raise ValueError(f"{path} is not a {what}: {error}.") from error
    return rows


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]):
    """Write rows to a CSV file in UTF-8, which is either complete or unchanged."""
    with (
        written_whole(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
