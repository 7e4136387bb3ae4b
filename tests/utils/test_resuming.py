"""Test that results are made again exactly if something they were made from has changed, and never lost."""

import json
import os
import shutil
import signal

import pytest

from transformers_massformer.utils.files import tidy
from transformers_massformer.utils.fingerprint import Origin
from transformers_massformer.utils.resuming import (
    RESULTS_FOLDER,
    RecordWriter,
    Results,
    claim,
    read_records,
    summarize,
)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_text("photo")
    return path


def make(folder, photo, text="result", **settings):
    """Write a file and a folder from a photo; return their standings the next time."""
    results, origin = Results(folder), Origin({"photo": photo}, settings)
    outputs = {folder / "sub" / "a.png": origin.describe(), folder / "sub" / "a_mattes": origin.describe()}
    with results.writing(outputs, [folder / "sub" / "a_mattes"]) as partials:
        for path, partial in partials.items():
            (partial / "sky.png" if path.name == "a_mattes" else partial).write_text(text)
    return results


def standings(folder, photo, **settings):
    origin = Origin({"photo": photo}, settings)
    return [Results(folder).standing(folder / "sub" / name, origin) for name in ("a.png", "a_mattes")]


def test_results_are_finished_until_something_changes(tmp_path, photo):
    folder = tmp_path / "out"
    assert [each.reason for each in standings(folder, photo, model=1)] == ["", ""]
    make(folder, photo, model=1)
    assert all(each.is_finished and not each.is_foreign for each in standings(folder, photo, model=1))
    assert [each.reason for each in standings(folder, photo, model=2)] == ["another model"] * 2
    photo.write_text("other")
    assert [each.reason for each in standings(folder, photo, model=1)] == ["another photo"] * 2
    assert not any(each.is_in_the_way for each in standings(folder, photo, model=2))
    assert summarize(standings(folder, photo, model=2)) == "2 again: another photo, model"


def test_moved_and_copied_folders_stay_finished(tmp_path, photo):
    make(tmp_path / "out", photo)
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
    (tmp_path / "out").rename(tmp_path / "moved")
    for name in ("copy", "moved"):
        assert all(each.is_finished and not each.is_foreign for each in standings(tmp_path / name, photo))


EDITS = {
    "another content": lambda folder: (folder / "a.png").write_text("edited"),
    "removed from a folder": lambda folder: (folder / "a_mattes" / "sky.png").unlink(),
    "added to a folder": lambda folder: (folder / "a_mattes" / "hair.png").write_text("new"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edited_results_are_kept(tmp_path, photo, edit):
    make(tmp_path, photo)
    EDITS[edit](tmp_path / "sub")
    (foreign,) = (each for each in standings(tmp_path, photo) if each.is_foreign)
    assert foreign.is_finished
    assert not foreign.is_in_the_way
    (foreign,) = (each for each in standings(tmp_path, photo, model=2) if each.is_foreign)
    assert foreign.is_in_the_way


@pytest.mark.parametrize("record", [None, "", "{}", "[1]", '{"made_from": 1, "state": null}', b"\xff\xfe"])
def test_results_without_a_readable_record_are_kept(tmp_path, photo, record):
    results = make(tmp_path, photo)
    path = results.record_path(tmp_path / "sub" / "a.png")
    path.unlink()
    if record is not None:
        path.write_bytes(record if isinstance(record, bytes) else record.encode())
    assert [each.is_in_the_way for each in standings(tmp_path, photo)] == [True, False]


def test_missing_results_are_made_again(tmp_path, photo):
    make(tmp_path, photo)
    shutil.rmtree(tmp_path / "sub" / "a_mattes")
    assert [each.is_finished for each in standings(tmp_path, photo)] == [True, False]
    assert not any(each.is_foreign for each in standings(tmp_path, photo))


def test_a_failure_leaves_results_and_records_unchanged(tmp_path, photo):
    results = make(tmp_path, photo, "old")

    def fail():
        with results.writing(
            {tmp_path / "sub" / "a.png": Origin({"photo": photo}, {"model": 2}).describe()}
        ) as partials:
            partials[tmp_path / "sub" / "a.png"].write_text("half")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="space"):
        fail()
    assert (tmp_path / "sub" / "a.png").read_text() == "old"
    assert all(each.is_finished for each in standings(tmp_path, photo))


@pytest.mark.parametrize("step", range(12))
def test_a_killed_run_is_resumed(tmp_path, photo, step, monkeypatch):
    """Kill a run that makes a result again at each of the steps in which it gives files their names."""
    make(tmp_path, photo, "old", model=1)
    pid = os.fork()
    if pid == 0:
        real, calls = os.replace, iter(range(100))

        def replace(*arguments):
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        os.replace = replace
        make(tmp_path, photo, "new", model=2)
        os._exit(0)
    os.waitpid(pid, 0)
    found = standings(tmp_path, photo, model=2)
    # Whatever happened: nothing is in the way, and what is called finished is the new result.
    assert not any(each.is_foreign for each in found)
    paths = (tmp_path / "sub" / "a.png", tmp_path / "sub" / "a_mattes" / "sky.png")
    assert all(path.read_text() == "new" for path, each in zip(paths, found, strict=True) if each.is_finished)
    # As in a new process.
    tidy.cache_clear()
    make(tmp_path, photo, "new", model=2)
    assert all(each.is_finished for each in standings(tmp_path, photo, model=2))
    assert not [path for path in tmp_path.rglob("*.partial") if path.is_relative_to(tmp_path / "sub")]


def test_of_two_runs_that_make_the_same_result_the_last_one_wins(tmp_path, photo):
    results, path = Results(tmp_path), tmp_path / "a.png"
    described = [Origin({"photo": photo}, {"model": number}).describe() for number in (1, 2)]
    with results.writing({path: described[0]}) as first:
        with results.writing({path: described[1]}) as second:
            second[path].write_text("2")
        first[path].write_text("1")
    assert path.read_text() == "1"
    assert results.standing(path, Origin({"photo": photo}, {"model": 1})).is_finished
    assert results.standing(path, Origin({"photo": photo}, {"model": 2})).reason == "another model"


def test_records_have_short_names_whatever_the_result_is_called(tmp_path, photo):
    for name in ("a" * 251 + ".png", "\udcfc.png", "ü/ä.png"):
        path, origin = tmp_path / name, Origin({"photo": photo}, {})
        with Results(tmp_path).writing({path: origin.describe()}) as partials:
            partials[path].write_text("x")
        assert Results(tmp_path).standing(path, origin).is_finished
    assert all(len(path.name) < 60 for path in (tmp_path / RESULTS_FOLDER).iterdir())


def test_a_folder_is_claimed_by_one_job(tmp_path):
    path = tmp_path / "job.json"
    assert claim(path, {"score": float("nan"), "tile": (1, 2)}, "test", overwrite=False)
    assert not claim(path, {"score": float("nan"), "tile": (1, 2)}, "test", overwrite=False)
    with pytest.raises(ValueError, match=r"another test \(different tile\)"):
        claim(path, {"score": float("nan"), "tile": (1, 3)}, "test", overwrite=False)
    path.write_text('{"score"')
    with pytest.raises(ValueError, match=r"damaged.*--overwrite"):
        claim(path, {}, "test", overwrite=False)


def test_records_of_two_runs_and_cut_off_lines(tmp_path):
    with RecordWriter(tmp_path, 0) as first, RecordWriter(tmp_path, 0) as second:
        first.write({"a": 1})
        second.write({"b": "\udcfc"})
    path = tmp_path / "records" / "0.jsonl"
    with path.open("ab") as file:
        file.write(json.dumps({"c": "ü"}, ensure_ascii=False).encode()[:8])
    with RecordWriter(tmp_path, 0) as writer:
        writer.write({"d": 4})
    assert list(read_records(tmp_path)) == [{"a": 1}, {"b": "\udcfc"}, {"d": 4}]
