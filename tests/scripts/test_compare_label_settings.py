"""Comparison of ways to use pseudo-labels."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from compare_label_settings import CLASS_ID, FALSE_POSITIVES, score_labels, stand_in, write_pseudo_labels
from support.commands import run_python

from transformers_massformer.data.pseudo_labels import PseudoLabelFiles
from transformers_massformer.data.reading import read_label
from transformers_massformer.labeling import pseudo_label_map


def wheel(size=(512, 384), centre=(200, 200), radius=80, spokes=12) -> np.ndarray:
    """A ring with spokes."""
    picture = PIL.Image.new("L", size)
    draw = PIL.ImageDraw.Draw(picture)
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=255, width=8)
    for angle in np.linspace(0, np.pi, spokes, endpoint=False):
        dx, dy = radius * np.cos(angle), radius * np.sin(angle)
        draw.line((x - dx, y - dy, x + dx, y + dy), fill=255)
    return np.asarray(picture) > 0


def test_the_stand_in_is_right_on_the_whole_and_wrong_at_edges():
    exact = wheel()
    (instance,) = stand_in(exact, np.random.default_rng(1))
    found = pseudo_label_map([instance], exact.shape) == CLASS_ID
    iou = (found & exact).sum() / (found | exact).sum()
    assert 0.2 < iou < 0.8
    left, top, right, bottom = instance.box
    assert abs(left - 120) < 12
    assert abs(bottom - 281) < 12
    # What it takes for the object lies on it or close by.
    rows, columns = np.nonzero(found)
    assert rows.min() > 100
    assert columns.max() < 300


def test_the_stand_in_misses_small_things_and_sees_some_that_are_not_there():
    assert not stand_in(wheel(radius=5), np.random.default_rng(1))
    nothing = np.zeros((384, 512), bool)
    counts = [len(stand_in(nothing, np.random.default_rng(seed))) for seed in range(40 * FALSE_POSITIVES)]
    assert 20 < sum(counts) < 70
    assert set(counts) == {0, 1}


@pytest.fixture
def data(tmp_path) -> Path:
    """One scene of a wheel, whose exact label map is known."""
    exact = wheel()
    label_map = np.zeros(exact.shape, np.uint8)
    label_map[:, 250:] = 3
    label_map[exact & (label_map == 0)] = CLASS_ID
    for folder in ("images/val", "annotations/val", "alphas/val/a"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    PIL.Image.new("RGB", (512, 384)).save(tmp_path / "data" / "images" / "val" / "a.jpg")
    PIL.Image.fromarray(label_map).save(tmp_path / "data" / "annotations" / "val" / "a.png")
    alpha = PIL.Image.fromarray((exact * 255).astype(np.uint8))
    alpha.save(tmp_path / "data" / "alphas" / "val" / "a" / "bicycle.png")
    return tmp_path / "data"


def test_labels_are_scored_against_the_exact_masks(data, tmp_path):
    write_pseudo_labels(data, tmp_path / "labels", "validation")
    tool, merged = (score_labels(data, tmp_path / "labels", alone) for alone in (True, False))
    assert 0 < tool["iou"] < 0.8
    # Within the label maps they can be no further off than where "others" is.
    assert merged["iou"] > tool["iou"]
    files = PseudoLabelFiles(tmp_path / "labels")
    combined = read_label(files.combined("validation", "a"), "a")[0].numpy()
    assert (combined[:, 250:] == 3).all()
    assert CLASS_ID in combined


@pytest.mark.slow
def test_a_comparison_from_scenes_to_table(tmp_path):
    scenes = ("--train-count", "4", "--val-count", "3", "--size", "640x480")
    training = ("--steps", "2", "--crop-size", "64", "--short-sides", "240,480", "--seeds", "1")
    files = ("--work", tmp_path / "work", "--results-file", tmp_path / "all.json", "--output", tmp_path / "all.md")
    run_python("scripts/research/compare_label_settings.py", *scenes, *training, *files)
    rows = json.loads((tmp_path / "all.json").read_text())["cpu"]["new_classes"]["rows"]
    assert [row["key"]["setting"] for row in rows] == ["tool", "merged", "reweighted", "unweighted", "alone"]
    assert "| with re-weighting (Eq. 7) |" in (tmp_path / "all.md").read_text()
    for name in ("new_class", "new_class_review"):
        with PIL.Image.open(tmp_path / "images" / f"{name}.jpg") as picture:
            assert min(picture.size) > 50
