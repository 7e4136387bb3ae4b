"""The implementations of training samples that are compared, and their document."""

import benchmark_data
import cv2
import numpy as np
import PIL.Image
import pytest
import torch
import typer
from typer.testing import CliRunner

from transformers_massformer.data import transforms
from transformers_massformer.data.transforms import IMAGE_STD, Distortion, TrainingTransform


TRANSFORM = TrainingTransform(crop_size=64, short_sides=(50, 80, 97, 150))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return benchmark_data.make_pair(tmp_path_factory.mktemp("pair"), 0, (130, 97))


def samples(pair, seed):
    """Make one sample with each contestant, with the same random numbers."""
    return [
        entry.make(TRANSFORM, *entry.decode(*pair), np.random.default_rng(seed))
        for entry in benchmark_data.contestants()
    ]


def test_made_pair(pair):
    with PIL.Image.open(pair[0]) as photo, PIL.Image.open(pair[1]) as label:
        assert photo.size == label.size == (130, 97)
        assert (photo.mode, label.mode) == ("RGB", "L")
        assert len(set(label.tobytes())) > 3
        assert np.asarray(photo).std() > 20


@pytest.mark.parametrize("seed", range(30))
def test_contestants_make_the_same_samples(pair, seed):
    by_window, by_torchvision, by_opencv = samples(pair, seed)
    assert torch.equal(by_window["labels"], by_opencv["labels"])
    difference = (by_window["pixel_values"] - by_opencv["pixel_values"]).abs()
    # The release rounds after each step; one step of a value is 0.017 here.
    assert difference.mean() < 0.06
    for sample in (by_torchvision, by_opencv):
        assert sample["pixel_values"].shape == (3, 64, 64)
        assert sample["pixel_values"].dtype == torch.float32
        assert sample["labels"].dtype == torch.int64


@pytest.mark.parametrize("seed", range(10))
def test_contestants_are_alike_but_for_torchvisions_colours(pair, seed, monkeypatch):
    for module in (benchmark_data, transforms):
        monkeypatch.setattr(module, "draw_distortion", lambda rng: Distortion())
    by_window, by_torchvision, by_opencv = samples(pair, seed)
    # torchvision rounds nearest neighbours differently.
    assert (by_window["labels"] != by_torchvision["labels"]).float().mean() < 0.05
    for sample in (by_torchvision, by_opencv):
        # Rounded to integers.
        assert (by_window["pixel_values"] - sample["pixel_values"]).abs().max() < 1.5 / min(IMAGE_STD)


def test_ratios():
    window, torchvision, opencv = benchmark_data.contestants()
    window.seconds, window.decode_seconds = [0.010, 0.010, 0.050], [0.1] * 3
    torchvision.seconds, torchvision.decode_seconds = [0.2] * 3, [0.2] * 3
    opencv.seconds, opencv.decode_seconds = [0.025] * 3, [0.1] * 3
    lines = benchmark_data.result_table([window, torchvision, opencv]).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in lines]
    assert cells[0] == ["100.0 ms", "10.0 ms", "", "8.1", ""]
    assert cells[1] == ["200.0 ms", "200.0 ms", "20.0", "2.5", "3.24"]
    assert cells[2] == ["100.0 ms", "25.0 ms", "2.5", "8.0", "1.01"]


def test_document(tmp_path):
    app = typer.Typer()
    app.command()(benchmark_data.main)
    output = tmp_path / "document.md"
    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        options = ["--images", "1", "--size", "64x48", "--crop-size", "32", "--rounds", "2", "--output", str(output)]
        result = CliRunner().invoke(app, options, catch_exceptions=False)
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    assert result.exit_code == 0
    text = output.read_text()
    assert "2 random draws: 1 photographs of 64 x 48 pixels, 2 rounds; samples of 32 x 32 pixels" in text
    assert text.count(" ms |") == 6
