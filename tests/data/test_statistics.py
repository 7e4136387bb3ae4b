import csv
import itertools
import json
import math
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.commands import run
from support.replica import write_pair, write_replica

from transformers_massformer.data import statistics
from transformers_massformer.data.layout import LABELS, find_splits
from transformers_massformer.data.statistics import (
    STEPS,
    StatisticsTable,
    class_perimeters,
    columns,
    image_statistics,
    summarize,
)
from transformers_massformer.data.statistics_plot import plot_distributions
from transformers_massformer.data.verification import verify


def ipq_of(mask: np.ndarray) -> float:
    """Returns the quotient of class 1 with this mask, surrounded by class 0."""
    return image_statistics(mask.astype(np.uint8)).ipq[1]


def disc(radius: float, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return x**2 + y**2 <= radius**2


@pytest.mark.parametrize("radius", [30, 100.5, 400])
def test_a_disc_has_a_quotient_of_1(radius):
    assert ipq_of(disc(radius, int(2 * radius) + 20)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("angle", [0, 10, 22.5, 30, 45, 63.4])
def test_a_square_has_a_quotient_of_4_over_pi(angle):
    y, x = np.mgrid[:900, :900] - 449.5
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    mask = (np.abs(cosine * x + sine * y) <= 250) & (np.abs(cosine * y - sine * x) <= 250)
    assert ipq_of(mask) == pytest.approx(4 / math.pi, rel=0.035)


@pytest.mark.parametrize(("teeth", "width", "length"), [(10, 8, 200), (40, 5, 300), (120, 3, 500)])
def test_a_comb(teeth, width, length):
    """The teeth are as wide as the gaps between them, on a back of the same height."""
    mask = np.zeros((length + width + 20, 2 * teeth * width + 20), dtype=bool)
    mask[10 : 10 + width, 10 : 10 + (2 * teeth - 1) * width] = True
    for tooth in range(teeth):
        mask[10 + width : 10 + width + length, 10 + 2 * tooth * width : 10 + (2 * tooth + 1) * width] = True
    perimeter = 2 * (2 * teeth - 1) * width + 2 * width + 2 * teeth * length
    area = (2 * teeth - 1) * width**2 + teeth * width * length
    assert ipq_of(mask) == pytest.approx(perimeter**2 / (4 * math.pi * area), rel=0.05)


def test_a_wire_of_one_pixel():
    mask = np.zeros((40, 1040), dtype=bool)
    mask[20, 20:1020] = True
    assert image_statistics(mask.astype(np.uint8)).perimeters[1] == pytest.approx(2000, rel=0.02)


def crossings_of_a_step(inside, y, x, down, right):
    """Counts changes between inside and outside on the way from a pixel to the next one."""
    ends = inside(y, x), inside(y + down, x + right)
    if ends[0] != ends[1]:
        return 1
    if {abs(down), abs(right)} != {1, 2}:
        return 0
    sign = 1 if right > 0 else -1
    between = [(0, sign), (1, sign)] if down == 1 else [(1, 0), (1, sign)]
    return 2 * all(inside(y + r, x + c) != ends[0] for r, c in between)


@settings(max_examples=80, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.sampled_from([0, 1, 2, 6, 255])))
def test_perimeters_against_a_literal_loop(label_map):
    """Counts the crossings of each class on its own, weighted with half the step's share of the half circle."""
    height, width = label_map.shape
    angles = sorted(math.atan2(down, right) for down, right in STEPS)
    expected = np.zeros(7)
    for label, (down, right) in itertools.product(range(7), STEPS):

        def inside(y, x, label=label):
            return 0 <= y < height and 0 <= x < width and label_map[y, x] == label

        index = angles.index(math.atan2(down, right))
        before = angles[index - 1] if index else angles[-1] - math.pi
        after = angles[index + 1] if index + 1 < len(angles) else angles[0] + math.pi
        steps = itertools.product(range(-2, height + 2), range(-4, width + 4))
        count = sum(crossings_of_a_step(inside, y, x, down, right) for y, x in steps)
        expected[label] += count * (after - before) / 4 / math.sqrt(down**2 + right**2)
    np.testing.assert_allclose(class_perimeters(label_map, 7), expected)
    found = image_statistics(label_map)
    assert found.areas.tolist() == [(label_map == label).sum() for label in range(7)]
    present = [L * L / (4 * math.pi * A) for L, A in zip(expected, found.areas, strict=True) if A]
    assert found.mipq == pytest.approx(np.mean(present)) if present else math.isnan(found.mipq)


def test_unknown_labels_and_other_arrays_are_refused():
    with pytest.raises(ValueError, match=r"unknown labels \[7, 254\]: .* labels are 0 to 6, and 255 for no class"):
        image_statistics(np.array([[0, 7], [254, 255]], dtype=np.uint8))
    for wrong in (np.zeros((2, 2)), np.zeros((2, 2, 3), np.uint8)):
        with pytest.raises(ValueError, match="two-dimensional array of uint8"):
            image_statistics(wrong)


def compute_all(path, splits):
    table = StatisticsTable(path)
    pairs = [(name, pair) for name, split in splits.items() for pair in split.pairs]
    rows = list(table.compute(pair for pair in pairs if not table.is_current(*pair)))
    table.drop_missing(splits)
    table.write()
    return rows


def test_an_interrupted_table_is_resumed(tmp_path, monkeypatch):
    write_replica(tmp_path / "data")
    splits = find_splits(tmp_path / "data")
    assert len(compute_all(tmp_path / "whole.csv", splits)) == 5
    real, calls = statistics.table_row, []

    def interrupted(split, pair, labels):
        calls.append(pair)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(split, pair, labels)

    monkeypatch.setattr(statistics, "table_row", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compute_all(tmp_path / "images.csv", splits)
    monkeypatch.setattr(statistics, "table_row", real)
    # Killed in the middle of a row.
    with (tmp_path / "images.csv").open("a") as file:
        file.write("train,turned,12")
    assert len(compute_all(tmp_path / "images.csv", splits)) == 3
    assert (tmp_path / "images.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_rows_of_changed_files_are_recomputed_and_those_of_removed_files_dropped(tmp_path):
    write_replica(tmp_path / "data")
    compute_all(tmp_path / "images.csv", find_splits(tmp_path / "data"))
    write_pair(tmp_path / "data", "train", "plain", (60, 60), seed=9)
    for kind, suffix in (("images_pad", "jpg"), ("annotations", "png")):
        (tmp_path / "data" / kind / "train" / f"turned.{suffix}").unlink()
    rows = compute_all(tmp_path / "images.csv", find_splits(tmp_path / "data"))
    assert [row["image_id"] for row in rows] == ["plain"]
    with (tmp_path / "images.csv").open() as file:
        table = {row["image_id"]: row for row in csv.DictReader(file)}
    assert "turned" not in table
    assert "last" in table
    assert table["plain"]["width"] == "60"


def test_the_summary_is_the_papers_table(tmp_path):
    expected = list(write_replica(tmp_path / "data").values())
    rows = compute_all(tmp_path / "images.csv", find_splits(tmp_path / "data"))
    assert set(rows[0]) == set(columns())
    summary = summarize(rows)
    diagonals = [math.hypot(*label_map.shape) for label_map in expected]
    mipq = [image_statistics(label_map).mipq for label_map in expected]
    pixels = np.concatenate([label_map.reshape(-1) for label_map in expected])
    assert summary["images"] == 5
    assert summary["diagonal_mean"] == pytest.approx(np.mean(diagonals), abs=0.01)
    assert summary["diagonal_std"] == pytest.approx(np.std(diagonals), abs=0.01)
    assert summary["mipq_mean"] == pytest.approx(np.mean(mipq), rel=1e-4)
    assert summary["mipq_std"] == pytest.approx(np.std(mipq), rel=1e-4)
    for index, label in enumerate(LABELS):
        assert summary["pixel_share"][label] == pytest.approx((pixels == index).sum() / (pixels != 255).sum())


@pytest.mark.parametrize("count", [1, 5])
def test_the_plot_is_a_picture(tmp_path, count):
    write_replica(tmp_path / "data")
    rows = compute_all(tmp_path / "images.csv", find_splits(tmp_path / "data"))[:count]
    plot_distributions(rows, tmp_path / "plot.png")
    assert np.array(PIL.Image.open(tmp_path / "plot.png").convert("L")).std() > 5


def test_the_command_writes_and_resumes(tmp_path):
    write_replica(tmp_path / "data")
    run("stats", tmp_path / "data", "--output", tmp_path / "out", "--threads", 1)
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert sorted(first) == ["distributions.png", "images.csv", "statistics.json"]
    assert json.loads(first["statistics.json"])["all"]["images"] == 5
    again = run("stats", tmp_path / "data", "--output", tmp_path / "out", "--threads", 2)
    assert "5 of 5 images are in" in again.output
    run("stats", tmp_path / "data", "--output", tmp_path / "other", "--threads", 2)
    for folder in ("out", "other"):
        assert {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} == first
    run("stats", tmp_path / "data", "--output", tmp_path / "out", "--split", "val")
    assert list(json.loads((tmp_path / "out" / "statistics.json").read_text())) == ["validation"]
    # Rows of the other splits are kept.
    assert (tmp_path / "out" / "images.csv").read_bytes() == first["images.csv"]


def test_the_command_names_what_is_missing(tmp_path):
    assert "does not exist" in run("stats", tmp_path / "nowhere", code=1).output
    write_pair(tmp_path / "data", "train", "a")
    result = run("stats", tmp_path / "data", "--split", "test", code=1)
    assert "Unknown split test; the data has train" in result.output
    (tmp_path / "data" / "annotations" / "train" / "a.png").unlink()
    result = run("stats", tmp_path / "data", "--output", tmp_path / "out", code=1)
    assert "1 x image without a label" in result.output


def test_verification_passes_complete_data_and_lists_notes(tmp_path):
    write_replica(tmp_path / "data")
    result = run("stats", tmp_path / "data", "--verify", "--output", tmp_path / "out")
    assert "No faults." in result.output
    assert "train (3 of 11,348 images)" in result.output
    assert "1 x turned image whose label may lie otherwise" in result.output
    assert "upside_down.jpg (EXIF orientation 3" in result.output


@pytest.mark.parametrize(
    ("fault", "file", "damage"),
    [
        ("corrupt image", "images_pad/val/upside_down.jpg", lambda path: path.write_bytes(path.read_bytes()[:-200])),
        ("corrupt label", "annotations/val/upside_down.png", lambda path: path.write_bytes(path.read_bytes()[:-40])),
        ("unknown labels", "annotations/val/upside_down.png", PIL.Image.new("L", (48, 36), 8).save),
        ("image without a label", "annotations/val/upside_down.png", Path.unlink),
        ("unreadable file", "images_pad/val/upside_down.jpg", lambda path: path.write_bytes(b"nothing")),
    ],
)
def test_verification_finds_every_fault(tmp_path, fault, file, damage):
    write_replica(tmp_path / "data")
    damage(tmp_path / "data" / file)
    result = run("stats", tmp_path / "data", "--verify", "--output", tmp_path / "out", code=1)
    assert f"1 x {fault}: " in result.output
    assert "upside_down" in result.output
    with (tmp_path / "out" / "verification.csv").open() as file:
        faults = [row for row in csv.DictReader(file) if row["severity"] == "fault"]
    assert fault in {row["kind"] for row in faults}


def test_verification_of_colours(tmp_path):
    write_pair(tmp_path, "train", "a")
    PIL.Image.new("RGB", (48, 36), (1, 2, 2)).save(tmp_path / "annotations" / "train" / "a.png")
    faults = [fault for report in verify(find_splits(tmp_path)) for fault in report.faults]
    assert ["has mode RGB with colours, not class ids" in fault.detail for fault in faults] == [True]
