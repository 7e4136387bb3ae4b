"""The errors of mattes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmark_mattes import errors
from benchmark_report import render
from support.tiny import tiny_model

from transformers_massformer import MaSSFormerImageProcessor


ROOT = Path(__file__).parents[2]


def test_errors_of_a_matte():
    alpha = np.zeros((100, 200), np.float32)
    alpha[:, 100:] = 1
    assert errors(alpha, alpha) == {"sad": 0.0, "mse": 0.0, "gradient": 0.0}
    shifted = np.roll(alpha, 4, axis=1)
    shifted[:, :4] = 0
    found = errors(shifted, alpha)
    # Four columns of a hundred, of 0.02 megapixels.
    assert found["sad"] == pytest.approx(400 / 1e3 / 0.02)
    assert found["mse"] == pytest.approx(1e3 * 400 / 20_000)
    assert found["gradient"] > errors(shifted * 0.99 + alpha * 0.01, alpha)["gradient"] > 0


def test_mattes_from_scenes_to_table(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    MaSSFormerImageProcessor().save_pretrained(tmp_path / "model")
    massformer = [sys.executable, "-m", "transformers_massformer.cli", "scenes", "--output", str(tmp_path / "data")]
    subprocess.run(
        [*massformer, "--count", "1", "--size", "320x240", "--split", "val", "--alpha"], check=True, cwd=ROOT
    )
    command = [sys.executable, "scripts/benchmarks/benchmark_mattes.py", "--data", str(tmp_path / "data"), "--classes"]
    command += ["vegetation", "--model", str(tmp_path / "model"), "--results-file", str(tmp_path / "all.json")]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "all.md")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "all.json").read_text())
    rows = results["cpu"]["mattes"]["rows"]
    assert [row["key"]["matte"] for row in rows] == ["label map", "soft", "refined"]
    document = (tmp_path / "all.md").read_text()
    assert document == render(results, "all.json")
    assert "| vegetation | refined | 1 |" in document
