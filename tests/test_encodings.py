"""Test that text files are read and written in one encoding, whatever the locale."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from support.tiny_data import write_pair


SOURCES = [path for folder in ("src", "scripts", "hub") for path in sorted((ROOT / folder).rglob("*.py"))]
# Functions called open that do not open text files.
OTHER = ("os.open", "Image.open", "PIL.Image.open", "tarfile.open", "zipfile.open")


def text_files_without_encoding(source):
    """Yield the lines of calls that open a text file in the encoding of the locale."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or {"encoding", None} & {each.arg for each in node.keywords}:
            continue
        name = ast.unparse(node.func)
        if name.endswith((".read_text", ".write_text")):
            yield node.lineno
        elif (name == "open" or name.endswith(".open")) and name not in OTHER:
            modes = [each.value for each in node.keywords if each.arg == "mode"] + node.args[name == "open" :]
            if not any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in modes[:1]):
                yield node.lineno


def test_every_text_file_has_an_encoding():
    assert len(SOURCES) > 150
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        for line in text_files_without_encoding(path.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("open(x)", 1),
        ("open(x, 'w')", 1),
        ("p.open()", 1),
        ("p.open('a', newline='')", 1),
        ("p.read_text(errors='replace')", 1),
        ("open(x, 'rb')", 0),
        ("p.open(mode='wb')", 0),
        ("open(x, encoding='utf-8')", 0),
        ("os.open(x, 0)", 0),
        ("p.write_text(x, encoding='utf-8')", 0),
    ],
)
def test_the_search_finds_them(source, count):
    assert len(list(text_files_without_encoding(source))) == count


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.skipif(os.name != "posix", reason="Other systems pass arguments as text.")
@pytest.mark.parametrize(
    "start", [["-c", "from _massformer import main; main()"], ["-m", "transformers_massformer.cli"]]
)
def test_names_survive_the_c_locale(tmp_path, start):
    data = tmp_path / "Straße"
    write_pair(data, "train", "grün", seed=0)
    command = [sys.executable, *start, "stats", str(data), "--output", str(tmp_path / "größe"), "--verify"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **C_LOCALE}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert "Straße" in done.stdout.decode("utf-8")
    assert Path(tmp_path / "größe" / "verification.csv").is_file()
