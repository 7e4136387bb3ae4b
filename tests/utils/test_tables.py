"""Test that tables are read however a spreadsheet saves them."""

import csv
import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_massformer.utils.tables import read_table, write_table


ROWS = [{"name": "a, b; c", "decision": "accept"}, {"name": 'said "ü"\nand', "decision": "reject"}]
COLUMNS = ["name", "decision"]


def saved(separator, end, quoting, reverse, more):
    """Save the rows as a spreadsheet might."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting)
    for row in ({name: name for name in COLUMNS}, *ROWS):
        values = [row[name] for name in COLUMNS]
        writer.writerow([*(reversed(values) if reverse else values), *[""] * more])
    writer.writerow([""] * (2 + more))
    return file.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_saved_by_spreadsheets(tmp_path, separator, encoding):
    path = tmp_path / "table.csv"
    for end, quoting, reverse, more, hint in itertools.product(
        ["\n", "\r\n"], [csv.QUOTE_MINIMAL, csv.QUOTE_ALL], [False, True], [0, 2], [False, True]
    ):
        text = saved(separator, end, quoting, reverse, more)
        path.write_bytes(((f"sep={separator}{end}" if hint else "") + text).encode(encoding))
        assert [row for _, row in read_table(path, COLUMNS, "list")] == ROWS


names = st.text(st.characters(exclude_characters="\0\r", exclude_categories=())).map(
    # As file names: what is not UTF-8 arrives as surrogates of single bytes.
    lambda text: text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
)


@given(st.lists(names.filter(str.strip)))
def test_what_is_written_is_read(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    write_table(path, COLUMNS, ({"name": value, "decision": "accept"} for value in values))
    assert [row["name"] for _, row in read_table(path, COLUMNS, "list")] == values


WRONG = {
    b"": "lacks the columns decision, name",
    b"name,other\n1,2\n": "lacks the columns decision",
    b"name,decision,name\n1,2,3\n": "the columns name twice",
    b"\xff\xfe1": "Save it as CSV in UTF-8",
}


@pytest.mark.parametrize("content", WRONG)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=WRONG[content]):
        read_table(path, COLUMNS, "list")


def test_missing_files_and_values(tmp_path):
    with pytest.raises(FileNotFoundError, match="no list at"):
        read_table(tmp_path / "none.csv", COLUMNS, "list")
    (tmp_path / "short.csv").write_text("name,decision\n\na\n")
    assert read_table(tmp_path / "short.csv", COLUMNS, "list") == [(3, {"name": "a", "decision": ""})]
