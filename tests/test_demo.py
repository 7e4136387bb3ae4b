import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest


ROOT = Path(__file__).parent.parent


def run_demo(folder, *arguments):
    command = [sys.executable, "scripts/demo.py", "--output", str(folder), *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_demo_goes_all_the_way(tmp_path):
    printed = run_demo(tmp_path, "--steps", "2")
    assert "pixel accuracy" in printed
    for name, mode in (("china.png", "P"), ("china_overlay.png", "RGB")):
        with PIL.Image.open(tmp_path / name) as picture:
            assert (picture.size, picture.mode) == ((640, 427), mode)
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_labels_are_three_classes_none_of_which_dominates():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from demo import colour_labels, load_sample_image
    finally:
        sys.path.pop(0)
    labels = colour_labels(load_sample_image("china.jpg"))
    _, counts = np.unique(labels, return_counts=True)
    assert len(counts) >= 3
    assert counts.max() / labels.size < 0.6


@pytest.mark.slow
def test_demo_learns_the_photograph(tmp_path):
    printed = run_demo(tmp_path)
    accuracy = float(printed.split("pixel accuracy ")[1].split("%")[0])
    assert accuracy > 97
