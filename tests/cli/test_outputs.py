"""What exists already in place of a command's output is refused before anything is computed."""

from pathlib import Path

import pytest
from support.commands import run


FOLDERS = (
    "annotations",
    "convert",
    "evaluate",
    "import",
    "label",
    "prepare",
    "refine",
    "scenes",
    "segment",
    "stats",
    "train",
    "train-hq-sam",
)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_no_file(tmp_path, monkeypatch, name):
    # A short path, since messages are wrapped.
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("kept")
    assert "is a file" in run(name, "--output", "file", code=2).stderr
    assert Path("file").read_text() == "kept"


@pytest.mark.parametrize("name", ["compare", "export", "evaluate-hq-sam"])
def test_a_file_is_no_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    assert "is a directory" in run(name, "--output", "folder", code=2).stderr
