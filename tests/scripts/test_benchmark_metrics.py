"""The compared implementations of the metrics, and their section of the document."""

import json

import benchmark_metrics
import numpy as np
import pytest
import typer
from typer.testing import CliRunner


def test_the_methods_agree():
    prediction, label = benchmark_metrics.make_pair(256, 192)
    assert prediction.shape == label.shape == (192, 256)
    assert 0.5 < (prediction == label).mean() < 0.99
    with np.errstate(invalid="ignore"):
        found = {name: method(prediction, label) for name, method in benchmark_metrics.METHODS.items()}
    benchmark_metrics.check_equal(found)
    found["literal"]["bf1"][3] += 1e-6
    with pytest.raises(RuntimeError, match="literal and counts differ in bf1"):
        benchmark_metrics.check_equal(found)


def test_the_section_is_added_to_the_document(tmp_path):
    results, document = tmp_path / "benchmarks.json", tmp_path / "benchmarks.md"
    app = typer.Typer()
    app.command()(benchmark_metrics.main)
    options = ["--size", "128x96", "--rounds", "1", "--results-file", str(results), "--output", str(document)]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    assert "| IoU, Boundary IoU and BF1 by erosions" in document.read_text()
    written = json.loads(results.read_text())["cpu"]["metrics"]
    assert len(written["rows"]) == 3
    assert "python scripts/benchmarks/benchmark_metrics.py" in written["source"]["command"]
    assert {path.name for path in tmp_path.iterdir()} == {"benchmarks.json", "benchmarks.md"}
