"""Test whether changed files are noticed, and copied ones are not."""

import os
import shutil

import pytest

from transformers_massformer.utils.fingerprint import (
    Origin,
    are_unchanged,
    differing,
    file_state,
    files_state,
    is_unchanged,
)


def rewrite_with_the_same_size_and_time(path):
    status = path.stat()
    path.write_text("new")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = {
    "longer": (lambda path: path.write_text("longer"), False),
    "same size": (lambda path: path.write_text("new"), False),
    "same size and time": (rewrite_with_the_same_size_and_time, False),
    "removed": (lambda path: path.unlink(), False),
    "touched": (lambda path: os.utime(path, ns=(1, 1)), True),
    "permissions": (lambda path: path.chmod(0o600), True),
    "written again": (lambda path: path.write_text("old"), True),
    "moved away and back": (lambda path: path.rename(path.with_suffix(".x")).rename(path), True),
    "copied": (lambda path: shutil.move(shutil.copy(path, path.with_suffix(".x")), path), True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_content_decides(tmp_path, change):
    path = tmp_path / "file"
    path.write_text("old")
    state, (do, expected) = file_state(path), CHANGES[change]
    assert is_unchanged(path, state)
    do(path)
    assert is_unchanged(path, state) == expected


def test_states_of_several_files_depend_on_their_order_and_number(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("a")
    second.write_text("b")
    states = files_state([first, second])
    assert are_unchanged([first, second], states)
    for other in ([second, first], [first], [first, second, second], []):
        assert not are_unchanged(other, states)
    assert are_unchanged([], files_state([]))


def test_origins_name_what_differs(tmp_path):
    photo, other = tmp_path / "photo", tmp_path / "other"
    photo.write_text("a")
    other.write_text("b")
    origin = Origin({"photo": photo}, {"model": [["x", "1"]], "tile": None})
    described = origin.describe()
    assert origin.differences(described) == []
    assert Origin({"photo": other}, {"model": [["x", "1"]], "tile": 64}).differences(described) == ["photo", "tile"]
    # New files and settings count, also as part of what was described by an earlier version.
    assert Origin({}, {"model": [], "flip": True}).differences(described) == ["photo", "flip", "model"]
    assert differing({"a": 1, "b": 2}, {"b": 2, "c": 3}) == ["a", "c"]
