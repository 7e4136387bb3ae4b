"""The errors of mattes."""

import json

import numpy as np
import pytest
from benchmark_mattes import errors
from benchmark_report import render
from support.commands import run, run_python


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


def test_mattes_from_scenes_to_table(peers, tmp_path):
    run("scenes", "--output", tmp_path / "data", "--count", "1", "--size", "320x240", "--split", "val", "--alpha")
    command = ("scripts/benchmarks/benchmark_mattes.py", "--data", tmp_path / "data", "--classes", "vegetation")
    files = ("--results-file", tmp_path / "all.json", "--output", tmp_path / "all.md")
    run_python(*command, "--model", peers("massformer"), *files)
    results = json.loads((tmp_path / "all.json").read_text())
    rows = results["cpu"]["mattes"]["rows"]
    assert [row["key"]["matte"] for row in rows] == ["label map", "soft", "refined"]
    document = (tmp_path / "all.md").read_text()
    assert document == render(results, "all.json")
    assert "| vegetation | refined | 1 |" in document
