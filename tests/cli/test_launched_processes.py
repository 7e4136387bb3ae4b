"""Test commands that a launcher shares among processes."""

import re
import subprocess
import sys

import PIL.Image
import pytest
from support import ROOT


def launch(*arguments):
    """Run a command in two processes on the CPU, and return its exit code and output."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "transformers_massformer.cli", *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(7):
        PIL.Image.effect_noise((70 + index, 66), 60).convert("RGB").save(folder / f"{index}.png")
    (folder / "broken.jpg").write_bytes(b"no photograph")
    return folder


def test_two_processes_share_the_photographs_of_segment(peers, photos, tmp_path):
    model, output = peers("massformer"), tmp_path / "out"
    command = ("segment", photos, "--model", model, "--output", output, "--device", "cpu", "--overlay")
    code, printed, errors = launch(*command)
    assert code == 1, errors
    done = re.findall(r"photos/(\d)\.png -> ", printed)
    # Each once, whichever process prints first.
    assert sorted(done) == list("0123456")
    assert printed.count("Segmenting 8 photographs on cpu in float32, in 2 processes") == 1
    assert printed.count("7 segmented, 1 failed") == 1
    assert errors.count("broken.jpg is not an image file") == 1
    assert (output / "classes.txt").exists()
    assert len(list(output.glob("*.png"))) == 14
    refused, printed, errors = launch(*command, "--overwrite", "--bokeh", "dragon")
    assert refused == 1, errors
    assert errors.count("--bokeh dragon: the model has no such class") == 1
    assert "Segmenting" not in printed
