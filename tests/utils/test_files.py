"""Test files and folders that are complete or unchanged, whoever else writes them."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from transformers_massformer.utils import files
from transformers_massformer.utils.files import (
    file_name,
    folder_written_whole,
    partial_path,
    remove_left_overs,
    written_whole,
)


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    with written_whole(path) as partial:
        partial.write_text("new")
        assert partial.parent == path.parent
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


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "ü" * 120 + ".png", "\udcfc.png", ".x", "a\nb"])
def test_every_name_that_a_file_system_accepts_can_be_written(tmp_path, name):
    with written_whole(tmp_path / name) as partial:
        partial.write_text("new")
    assert os.listdir(tmp_path) == [name]


def test_two_writers_do_not_disturb_each_other(tmp_path):
    file, folder = tmp_path / "file.txt", tmp_path / "folder"
    with written_whole(file) as first, folder_written_whole(folder) as first_folder:
        with written_whole(file) as second, folder_written_whole(folder) as second_folder:
            second.write_text("second")
            (second_folder / "b").write_text("second")
        first.write_text("first")
        (first_folder / "a").write_text("first")
    # The last one wins, as a whole.
    assert file.read_text() == "first"
    assert os.listdir(folder) == ["a"]
    assert sorted(os.listdir(tmp_path)) == ["file.txt", "folder"]


def write_often(folder, number):
    for _ in range(40):
        with folder_written_whole(folder) as partial:
            for name in "ab":
                (partial / name).write_text(str(number))


def test_a_folder_written_by_several_processes_comes_from_one_of_them(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(tmp_path / "folder", number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    first, second = ((tmp_path / "folder" / name).read_text() for name in "ab")
    assert first == second
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("raced", [True, False])
def test_a_folder_that_another_process_puts_there_is_replaced_and_other_errors_keep_the_old_one(
    tmp_path, monkeypatch, raced
):
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        folder.mkdir()
        (folder / "a").write_text(folder.name)
    rename = Path.rename
    calls = []

    def disturbed(path, new):
        if path == source and not calls:
            calls.append(new)
            if not raced:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            # Two others: one has moved the folder away, a third has put its own there.
            new.mkdir()
            (new / "a").write_text("other")
        return rename(path, new)

    monkeypatch.setattr(Path, "rename", disturbed)
    if raced:
        files.replace_folder(source, target)
        assert (target / "a").read_text() == "source"
    else:
        with pytest.raises(PermissionError):
            files.replace_folder(source, target)
        assert (target / "a").read_text() == "target"
    assert {path.name for path in tmp_path.iterdir()} == ({"target"} if raced else {"source", "target"})


def killed_while_writing(path):
    with written_whole(path) as partial:
        partial.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=killed_while_writing, args=(tmp_path / "a",))
    process.start()
    process.join()
    (left,) = tmp_path.iterdir()
    alive = partial_path(tmp_path / "a")
    # This process has the number of one that was killed in another container.
    reused = tmp_path / partial_path(tmp_path / "a").name.replace(files.RUN, "0" * 8)
    elsewhere, old = (tmp_path / partial_path(tmp_path / "a").name.replace(files.HOST, letter * 8) for letter in "01")
    others = [tmp_path / ".download.partial", tmp_path / "b.partial"]
    for path in (alive, reused, elsewhere, old, *others):
        path.mkdir() if path == reused else path.write_text("")
    os.utime(old, (0, 0))
    remove_left_overs(tmp_path)
    assert {*tmp_path.iterdir()} == {alive, elsewhere, *others}
    assert not left.exists()


def test_file_names_contain_no_separators():
    assert file_name("a/b: c (1).jpg") == "a_b_c_1_.jpg"
