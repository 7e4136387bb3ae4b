"""What stored values mean: options that map them, refused conventions, and classes without a pixel."""

import csv
import json
import re

import numpy as np
import PIL.Image
import pytest
import torch
from support.commands import run
from support.replica import write_pair

from transformers_massformer.data.layout import IGNORE_INDEX, LABELS, find_splits
from transformers_massformer.data.mask_values import check_ids, map_values, parse_mask_values, with_mask_values
from transformers_massformer.data.presence import (
    check_convention,
    describe_absent,
    find_presence,
    label_sources,
    spread,
)
from transformers_massformer.data.samples import EvaluationSet
from transformers_massformer.training.session import items


NAMES = ["background", "object"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:background,255:object", ((0, 0), (255, 1))),
        (" 255 : Object , 128: ignore,0:0", ((255, 1), (128, 255), (0, 0))),
        ("7:1", ((7, 1),)),
        (None, None),
    ],
)
def test_values_mean_names_or_ids(text, expected):
    assert parse_mask_values(text, NAMES) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0:sky", "names the unknown class 'sky'; the classes are 0 background, 1 object.*--labels"),
        ("0:2", "names the unknown class '2'"),
        ("0=background", "'0=background' is not VALUE:CLASS"),
        ("256:object", "'256:object' is not VALUE:CLASS"),
        ("-1:object", "'-1:object' is not VALUE:CLASS"),
        ("", "'' is not VALUE:CLASS"),
        ("0:object,0:background", "gives the value 0 twice"),
    ],
)
def test_malformed_options_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_mask_values(text, NAMES)


def test_a_class_named_like_the_option_s_word_or_like_an_id_wins():
    assert parse_mask_values("5:ignore,6:0", ["1", "0", "ignore"]) == ((5, 2), (6, 1))


def test_values_that_are_not_mapped_are_refused():
    label_map = np.array([[0, 255], [128, 3]], np.uint8)
    assert map_values(label_map[:1], ((0, 0), (255, 1)), "a").tolist() == [[0, 1]]
    with pytest.raises(ValueError, match=r"a has the values 3, 128, which --mask-values does not map.*as 3:ignore"):
        map_values(label_map, ((0, 0), (255, 1)), "a")


@pytest.mark.parametrize(
    ("values", "num_labels", "text"),
    [
        ([1, 2, 7], 7, r"numbered from 1 \(0 does not occur\): pass --mask-values 1:FIRST,2:SECOND"),
        ([0, 1, 7, 255], 7, r"\(0 seems to mark pixels without a class\): pass --mask-values 0:ignore,1:FIRST"),
        ([0, 128, 255], 3, "grey levels mean classes, pass --mask-values 0:CLASS,128:CLASS,255:CLASS"),
        ([0, 1, 9], 7, "Name all classes, map the values"),
    ],
)
def test_unknown_labels_come_with_a_guess(values, num_labels, text):
    with pytest.raises(ValueError, match=text):
        check_ids(np.array([values], np.uint8), num_labels, "a")
    check_ids(np.array([[*range(num_labels), 255]], np.uint8), num_labels, "a")


def write_masks(root, values, splits=("train", "val"), count=2):
    """Writes photos whose label maps have blocks of these values; returns the folder."""
    for split in splits:
        for number in range(count):
            write_pair(root, split, f"{split}{number}", (96, 80), folder="images", seed=number)
            blocks = np.random.default_rng(number).choice(values, (5, 6)).astype(np.uint8)
            blocks.flat[: len(values)] = values
            stored = blocks.repeat(16, axis=0).repeat(16, axis=1)
            PIL.Image.fromarray(stored).save(root / "annotations" / split / f"{split}{number}.png")
    return root


CONVENTIONS = {
    "0 and 255": ([0, 255], "all values are 0 or 255, such as .*--mask-values 0:background,255:object"),
    "255": ([255], "no pixel has a class: every value is 255"),
    "0": ([0], "all values are 0, background"),
}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_conventions_that_leave_no_class_are_refused_everywhere(tmp_path, convention):
    values, text = CONVENTIONS[convention]
    data = write_masks(tmp_path / "data", values)
    labels = ["--labels", "background", "--labels", "object"]
    shown = run("stats", data, "--verify", *labels, "--output", tmp_path / "stats", code=1).output
    assert re.search(text, " ".join(shown.split()))
    assert "No faults" not in shown
    with (tmp_path / "stats" / "verification.csv").open() as file:
        faults = [row for row in csv.DictReader(file) if row["severity"] == "fault"]
    assert [row["name"] for row in faults] == ["train", "validation"]
    predictions = data / "annotations" / "val"
    options = ("--model", predictions, "--data", data, "--split", "val", *labels, "--inference", "general")
    shown = run("evaluate", *options, "--output", tmp_path / "evaluation", code=1).output
    assert re.search(text, " ".join(shown.split()))
    with pytest.raises(ValueError, match=text):
        check_convention(find_presence(label_sources(find_splits(data)["train"].pairs), 2), NAMES, "train")


def test_mapped_values_pass_in_stats_evaluate_annotations_and_training(tmp_path):
    data = write_masks(tmp_path / "data", [0, 255])
    labels = ["--labels", "background", "--labels", "object"]
    mapped = [*labels, "--mask-values", "0:background,255:object"]
    assert "No faults" in run("stats", data, "--verify", *mapped, "--output", tmp_path / "stats").output
    run("stats", data, *mapped, "--output", tmp_path / "stats")
    share = json.loads((tmp_path / "stats" / "statistics.json").read_text())["train"]["pixel_share"]
    assert share["object"] > 0
    assert share["background"] + share["object"] == pytest.approx(1)
    # The same label maps with another meaning are measured again.
    other = [*labels, "--mask-values", "0:object,255:background"]
    run("stats", data, *other, "--output", tmp_path / "stats")
    again = json.loads((tmp_path / "stats" / "statistics.json").read_text())["train"]["pixel_share"]
    assert again["background"] == pytest.approx(share["object"])

    converted = tmp_path / "converted"
    run("annotations", data, *mapped, "--format", "png", "--output", converted)
    stored = np.asarray(PIL.Image.open(data / "annotations" / "val" / "val0.png"))
    label_map = np.asarray(PIL.Image.open(converted / "annotations" / "val" / "val0.png"))
    assert np.array_equal(label_map, stored // 255)

    options = ["--data", data, "--split", "val", "--output", tmp_path / "evaluation", *mapped]
    run("evaluate", "--model", converted / "annotations" / "val", *options)
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert results["scores"]["mean_iou"] == 1
    assert results["scores"]["per_category_iou"] == [1, 1]

    splits = with_mask_values(find_splits(data), "0:background,255:object", NAMES)
    sample = EvaluationSet(items(splits["validation"].pairs))[0]
    assert torch.equal(sample["label"], torch.from_numpy(label_map.copy()))


def test_an_option_without_a_class_s_value_names_the_file(tmp_path):
    data = write_masks(tmp_path / "data", [0, 128, 255])
    options = ("--labels", "a", "--labels", "b", "--mask-values", "0:a,255:b")
    shown = run("stats", data, *options, "--output", tmp_path / "stats", code=1).output
    assert re.search(r"\S+\.png has the values 128, which --mask-values does not map", " ".join(shown.split()))


def test_classes_without_a_pixel_are_listed(tmp_path):
    data = write_masks(tmp_path / "data", [0, 2, 255], ("train",))
    shown = run("stats", data, "--verify", "--output", tmp_path / "stats").output
    assert "5 x class without a pixel: human in train, vegetation in train" in " ".join(shown.split())
    with (tmp_path / "stats" / "verification.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "class without a pixel"]
    assert [row["name"] for row in rows] == [f"{label} in train" for label in LABELS if label not in LABELS[:3:2]]
    shown = run("stats", data, "--output", tmp_path / "stats").output
    assert "Classes without a pixel in train: human, vegetation, ground, sky, water" in " ".join(shown.split())
    found = find_presence(label_sources(find_splits(data)["train"].pairs), len(LABELS))
    assert found.ids == {0, 2, IGNORE_INDEX}
    assert "No pixel of human, vegetation, ground, sky, water in any of the 2 label maps" in describe_absent(
        found, LABELS
    )


def test_few_label_maps_are_read_unless_all_look_alike(tmp_path, monkeypatch):
    data = write_masks(tmp_path / "data", [0, 3], ("train",), count=9)
    pairs = label_sources(find_splits(data)["train"].pairs)
    assert find_presence(pairs, 2, sample=1).num_read == 1
    found = find_presence(pairs, 7, sample=4)
    assert found.num_read == 4
    assert "in 4 of the 9 label maps" in describe_absent(found, LABELS)
    # Only the last one that is read shows that 255 is not a class.
    for pair in pairs:
        PIL.Image.fromarray(np.full((80, 96), 255, np.uint8)).save(pair["label"])
    last = list(spread(9))[-1]
    PIL.Image.fromarray(np.full((80, 96), 4, np.uint8)).save(pairs[last]["label"])
    found = find_presence(pairs, 7, sample=1)
    assert (found.num_read, found.ids) == (9, {4, 255})
    check_convention(found, LABELS, "train")


@pytest.mark.parametrize("count", [1, 2, 5, 64, 101])
def test_the_first_label_maps_are_spread_over_all(count):
    order = list(spread(count))
    assert sorted(order) == list(range(count))
    gaps = np.diff(sorted([-1, *order[: count // 2 + 1], count]))
    assert gaps.max() <= 5
