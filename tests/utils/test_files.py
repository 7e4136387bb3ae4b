"""Test files that are complete or unchanged, and the detection of rewritten files."""

import os

import pytest

from transformers_massformer.utils.files import file_name, file_state, partial_path, written_whole


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    with written_whole(path) as partial:
        partial.write_text("new")
        assert partial == partial_path(path)
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_file_unchanged(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail():
        with written_whole(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_state_changes_when_a_file_is_rewritten(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    before = file_state(path)
    assert file_state(path) == before
    path.write_text("newer")
    assert file_state(path) != before
    # The size stays, the modification time does not.
    longer = file_state(path)
    path.write_text("other")
    os.utime(path, ns=(0, 0))
    assert file_state(path) != longer


def test_file_names_contain_no_separators():
    assert file_name("a/b: c (1).jpg") == "a_b_c_1_.jpg"
