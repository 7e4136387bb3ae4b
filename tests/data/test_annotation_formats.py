"""Label maps as PNG and in COCO format: round trips, and both as training data."""

import contextlib
import csv
import io
import json
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pycocotools.coco import COCO
from support.commands import run
from support.replica import write_replica

from transformers_massformer.data.annotations import (
    coco_annotation,
    coco_masks,
    decode_segmentation,
    encode_mask,
    read_coco_annotation,
    run_lengths,
    write_label_map,
)
from transformers_massformer.data.label_headers import read_label_header
from transformers_massformer.data.label_map_folder import LabelMapFolder
from transformers_massformer.data.layout import LABELS, choose_split, find_splits
from transformers_massformer.data.mass13k import load_mass13k
from transformers_massformer.data.parquet import write_parquet
from transformers_massformer.data.reading import read_label, read_pair
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.data.transforms import TrainingTransform
from transformers_massformer.training.session import items, read_pairs


def open_coco(path) -> COCO:
    """Opens an annotation with pycocotools, which prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


label_maps = st_numpy.arrays(
    np.uint8,
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    elements=st.sampled_from([*range(len(LABELS)), 255]),
    fill=st.sampled_from([*range(len(LABELS)), 255]),
)


@settings(max_examples=150, deadline=None)
@given(label_maps, st.sampled_from([".png", ".json"]))
def test_round_trips_are_exact(tmp_path_factory, label_map, suffix):
    path = tmp_path_factory.mktemp("maps") / f"a{suffix}"
    write_label_map(label_map, path, LABELS, "a.jpg")
    found, orientation = read_label(path, str(path))
    assert found.dtype.itemsize == 1
    assert found.is_contiguous()
    assert np.array_equal(found.numpy(), label_map)
    assert orientation == (1 if suffix == ".json" else 0)
    assert read_label_header(path).upright_size == label_map.shape[::-1]


@settings(max_examples=50, deadline=None)
@given(label_maps)
def test_pycocotools_reads_the_same(tmp_path_factory, label_map):
    path = tmp_path_factory.mktemp("coco") / "a.json"
    write_label_map(label_map, path, LABELS, "photo.jpg")
    opened = open_coco(path)
    ((image_id, image),) = opened.imgs.items()
    height, width = label_map.shape
    assert image == {"id": image_id, "file_name": "photo.jpg", "width": width, "height": height}
    assert {index: each["name"] for index, each in opened.cats.items()} == dict(enumerate(LABELS))
    present = sorted(set(np.unique(label_map).tolist()) - {255})
    assert [each["category_id"] for each in opened.anns.values()] == present
    for each in opened.loadAnns(opened.getAnnIds(imgIds=image_id)):
        mask = label_map == each["category_id"]
        assert np.array_equal(opened.annToMask(each), mask)
        assert (each["area"], each["iscrowd"]) == (mask.sum(), 0)
        rows, columns = np.nonzero(mask)
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert each["bbox"] == [left, top, right - left, bottom - top]
        assert isinstance(each["segmentation"]["counts"], str)


def test_as_many_classes_as_there_are_indices(tmp_path):
    label_map = np.arange(256, dtype=np.uint8).reshape(16, 16)
    labels = [f"class {index}" for index in range(255)]
    write_label_map(label_map, tmp_path / "a.json", labels, "a.jpg")
    assert np.array_equal(read_coco_annotation(tmp_path / "a.json").numpy(), label_map)
    with pytest.raises(
        ValueError, match="holds at most 255 classes, since 255 marks pixels without a class; 256 are named"
    ):
        coco_annotation(label_map, [*labels, "one more"], "a.jpg")
    with pytest.raises(ValueError, match=r"has the values \[7, 8\], but only 7 classes are named"):
        write_label_map(np.array([[0, 8, 7, 255]], np.uint8), tmp_path / "b.json", LABELS, "a.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def damaged_counts(change):
    message = "annotation 0 (others) cannot be read: its counts are damaged"
    return ("annotations", 0, "segmentation", "counts"), change, message


# By fault: place in the annotation, change of the value there, and text expected in the error.
FAULTS = {
    "overlap": (
        ("annotations",),
        lambda each: [each[0], each[1] | {"segmentation": each[0]["segmentation"]}],
        "human (annotation 1) overlaps others at 30 pixels. Assign each pixel to one class",
    ),
    "unknown category": (
        ("annotations", 1, "category_id"),
        lambda _: 9,
        "annotation 1 has category 9, which is missing from its `categories`, 0, 1, 2, 3, 4, 5, 6, 255. Add it",
    ),
    "category 255": (
        ("annotations", 1, "category_id"),
        lambda _: 255,
        "annotation 1 has category 255. Ids are class indices, from 0 to 254",
    ),
    "polygon of two points": (
        ("annotations", 0, "segmentation"),
        lambda _: [[0, 0, 3, 0]],
        "annotation 0 (others) cannot be read: one of its polygons is not a list of three or more points",
    ),
    "polygon with NaN": (
        ("annotations", 0, "segmentation"),
        lambda _: [[0, 0, 3, 0, 3, float("nan")]],
        "one of its polygons is not a list of three or more points",
    ),
    "no polygons": (
        ("annotations", 0, "segmentation"),
        lambda _: [],
        "its segmentation is neither a run-length encoding, {size, counts}, nor polygons",
    ),
    "counts are a number": (
        ("annotations", 0, "segmentation", "counts"),
        lambda _: 60,
        "its counts are neither a string nor a list of run lengths",
    ),
    "plain counts too short": damaged_counts(lambda _: [0, 59]),
    "plain counts too long": damaged_counts(lambda _: [0, 60, 1]),
    "plain counts negative": damaged_counts(lambda _: [0, 70, -10]),
    "plain counts huge": damaged_counts(lambda _: [2**64, 60]),
    "mask of another size": (
        ("annotations", 0, "segmentation", "size"),
        lambda _: [5, 12],
        "its mask has size [5, 12], the image [10, 6] (height, width). Write it again",
    ),
    "annotation is not a mapping": (("annotations",), lambda _: ["human"], "annotation 0 has category None"),
    "two photographs": (
        ("images",),
        lambda each: 2 * each,
        "describes 2 photographs. Split it into one file per photograph",
    ),
    "name is a number": (("categories", 1, "name"), lambda _: 1, "and its category names strings"),
    "size is a string": (("images", 0, "width"), lambda _: "6", "its sizes and ids must be integers"),
    "size is negative": (("images", 0, "width"), lambda _: -6, "and its sizes at least 1"),
    "counts too short": damaged_counts(lambda counts: counts[:-1]),
    "counts too long": damaged_counts(lambda counts: counts + "1"),
    "counts empty": damaged_counts(lambda _: ""),
    "counts that continue": damaged_counts(lambda counts: counts + "o"),
    "counts of other characters": damaged_counts(lambda counts: "\xff" + counts),
    "counts of null": damaged_counts(lambda counts: counts + "\0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_the_file_and_the_remedy(tmp_path, fault):
    path = tmp_path / "a.json"
    label_map = np.zeros((10, 6), np.uint8)
    label_map[5:] = 1
    content = coco_annotation(label_map, LABELS, "a.jpg")
    content["categories"].append({"id": 255, "name": "none"})
    (*parents, name), change, text = FAULTS[fault]
    place = content
    for each in parents:
        place = place[each]
    place[name] = change(place[name])
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*{re.escape(text)}"):
        read_label(path, str(path))


NO_ANNOTATIONS = json.dumps({"images": [{"id": 1, "width": 6, "height": 10, "file_name": "a.jpg"}], "categories": []})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"images": 3}', "\xff", "[" * 100_000, NO_ANNOTATIONS])
def test_other_json_files_are_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"a\.json is not an annotation in COCO format: .*Write it again"):
        read_label_header(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"b\.json"):
        read_label(tmp_path / "b.json", "b")


def test_an_annotation_too_large_to_be_decoded_is_refused(tmp_path, monkeypatch):
    content = coco_annotation(np.zeros((10, 10), np.uint8), LABELS, "a.jpg")
    (tmp_path / "a.json").write_text(json.dumps(content))
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 49)
    with pytest.raises(ValueError, match=r"a\.json is too large to be decoded safely, 10 x 10"):
        read_coco_annotation(tmp_path / "a.json")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 50)
    assert read_coco_annotation(tmp_path / "a.json").shape == (10, 10)


def test_several_masks_of_a_class_are_one(tmp_path):
    label_map = np.zeros((6, 8), np.uint8)
    content = coco_annotation(label_map, LABELS, "a.jpg")
    content["annotations"] *= 2
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert np.array_equal(read_coco_annotation(tmp_path / "a.json").numpy(), label_map)


@pytest.fixture
def both(tmp_path):
    """A data set with label maps as PNG, some stored like their photographs, and the same in COCO format."""
    expected = write_replica(tmp_path / "png")
    result = run("annotations", tmp_path / "png", "--output", tmp_path / "coco", "--format", "coco-rle")
    assert "5 of 5 label maps written" in result.output
    shutil.copytree(tmp_path / "png" / "images_pad", tmp_path / "coco" / "images_pad")
    return tmp_path / "png", tmp_path / "coco", expected


def test_a_data_set_in_either_format_is_the_same(both, tmp_path):
    png, coco, expected = both
    splits = find_splits(coco)
    assert not any(split.faults for split in splits.values())
    for name, split in splits.items():
        others = choose_split(find_splits(png), name).pairs
        for pair, other in zip(split.pairs, others, strict=True):
            assert (pair.label.suffix, other.label.suffix) == (".json", ".png")
            one, two = (read_pair(each.image, each.label, ("photo", "label")) for each in (pair, other))
            assert np.array_equal(np.asarray(one[0]), np.asarray(two[0]))
            assert np.array_equal(one[1].numpy(), two[1].numpy())
            assert np.array_equal(one[1].numpy(), expected[pair.image_id])
    # Existing label maps are skipped, and after the way back all are upright.
    again = run("annotations", png, "--output", coco, "--format", "coco-rle")
    assert "0 of 5 label maps written" in again.output
    back = run("annotations", coco, "--output", tmp_path / "back", "--format", "png", "--split", "train")
    assert "3 of 3 label maps written" in back.output
    for path in (tmp_path / "back" / "annotations" / "train").iterdir():
        assert np.array_equal(np.asarray(PIL.Image.open(path)), expected[path.stem])
    missing = run("annotations", tmp_path / "nowhere", "--output", tmp_path / "x", "--format", "png", code=1)
    assert "does not exist" in missing.output


def test_statistics_and_verification_of_either_format_are_the_same(both, tmp_path):
    tables = []
    for data in both[:2]:
        output = tmp_path / f"statistics_{data.name}"
        run("stats", data, "--verify", "--output", output)
        run("stats", data, "--output", output)
        with (output / "images.csv").open(newline="") as file:
            rows = [{key: value for key, value in row.items() if key != "label_state"} for row in csv.DictReader(file)]
        tables.append(rows)
    # Statistics describe label maps as they are stored, so turned ones have their sides exchanged.
    for one, two in zip(*tables, strict=True):
        assert {one["width"], one["height"]} == {two["width"], two["height"]}
        assert all(one[key] == two[key] for key in one if key.startswith(("area", "num_labels")))


def test_evaluation_takes_predictions_and_data_in_either_format(both, tmp_path):
    png, coco, expected = both
    # Nearly right, and with a class at every pixel.
    prediction = np.where(expected["upside_down"] == 255, 0, expected["upside_down"])
    prediction[:5] = 3
    write_label_map(prediction, tmp_path / "png_maps" / "upside_down.png", LABELS, "upside_down.jpg")
    write_label_map(prediction, tmp_path / "coco_maps" / "upside_down.json", LABELS, "upside_down.jpg")
    scores = []
    for data in (png, coco):
        for predictions in (tmp_path / "png_maps", tmp_path / "coco_maps"):
            output = tmp_path / f"{data.name}_{predictions.name}"
            options = ("--data", data, "--split", "validation", "--output", output, "--profile-size", "0")
            run("evaluate", "--model", predictions, *options)
            scores.append(json.loads((output / "results.json").read_text())["scores"])
    assert all(each == scores[0] for each in scores)
    assert 50 < 100 * scores[0]["mean_iou"] < 100


def test_training_samples_of_either_format_are_the_same(both):
    png, coco, _ = both
    transform = TrainingTransform(crop_size=24, short_sides=(30, 40))
    one, two = (TrainingSet(items(read_pairs(find_splits(data), "train")), transform, seed=1) for data in (png, coco))
    assert len(one) == 3
    for index in range(3):
        for name, value in one[index].items():
            assert torch.equal(value, two[index][name])


def test_two_annotations_of_one_photograph_are_an_error_that_names_both(both):
    png, coco, _ = both
    shutil.copy(png / "annotations" / "val" / "upside_down.png", coco / "annotations" / "val")
    result = run("stats", coco, code=1)
    text = " ".join(result.output.split())
    assert "1 x several labels of one name" in text
    assert "upside_down.json, upside_down.png" in text
    with pytest.raises(ValueError, match=r"several predictions for upside_down: .*\.json and .*\.png\. Remove one"):
        LabelMapFolder(coco).file("upside_down")


def test_formats_can_be_mixed(both):
    png, coco, _ = both
    label = coco / "annotations" / "train" / "plain.json"
    label.unlink()
    shutil.copy(png / "annotations" / "train" / "plain.png", label.parent)
    split = find_splits(coco)["train"]
    assert [pair.label.suffix for pair in split.pairs] == [".png", ".json", ".json"]
    assert not split.faults


SHIFTED = [{"id": index + 1, "name": name} for index, name in enumerate(LABELS)]
ANOTHER_SIZE = "1 x label of another size than its image"


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("plain", lambda content: content["images"][0].update(width=49), ANOTHER_SIZE),
        # An annotation describes the upright photograph and is never turned.
        ("turned", lambda content: content["images"][0].update(width=48, height=36), ANOTHER_SIZE),
        ("plain", lambda content: content.update(categories=SHIFTED), "human is 2, the class 1"),
        ("plain", dict.clear, "1 x unreadable file"),
    ],
    ids=["size", "stored size", "category", "damaged"],
)
def test_a_data_set_s_faults_are_found(both, name, change, text):
    _, coco, _ = both
    path = coco / "annotations" / "train" / f"{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    result = run("stats", coco, code=1)
    shown = " ".join(result.output.split())
    assert text in shown
    assert path.name in shown


def test_data_sets_of_pictures_name_the_remedy(both, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    _, coco, _ = both
    for load in (
        lambda: load_mass13k(coco, "train"),
        lambda: load_mass13k(coco, "train", streaming=True),
        lambda: list(write_parquet(find_splits(coco), tmp_path / "parquet")),
    ):
        with pytest.raises(
            ValueError,
            match=r"not PNG files of 8 bits .* as .*plain\.json\. Convert them: `massformer annotations",
        ):
            load()


runs_of_a_mask = st.lists(st.integers(0, 6), min_size=1, max_size=12).filter(lambda runs: sum(runs) > 0)


@settings(max_examples=200, deadline=None)
@given(runs_of_a_mask, st.booleans())
def test_runs_without_pixels_compressed_and_plain(runs, compressed):
    size = [sum(runs), 1]
    counts = runs
    if compressed:
        counts = coco_masks().frPyObjects({"size": size, "counts": runs}, *size)["counts"].decode()
        assert run_lengths(counts).tolist() == runs
    mask = decode_segmentation({"size": size, "counts": counts}, tuple(size))
    assert np.array_equal(mask[:, 0], np.repeat(np.arange(len(runs)) % 2 == 1, runs))


@settings(max_examples=60, deadline=None)
@given(st_numpy.arrays(bool, st.tuples(st.integers(1, 90), st.integers(1, 90))))
def test_decoded_masks_are_pycocotools(mask):
    encoded = encode_mask(mask)
    assert np.array_equal(decode_segmentation(encoded, mask.shape), mask)


def test_large_masks_have_numbers_of_several_characters():
    mask = np.zeros((3000, 2000), bool)
    mask[7:2900, 3:1900] = True
    mask[100:120] = np.random.default_rng(0).random((20, 2000)) < 0.5
    assert np.array_equal(decode_segmentation(encode_mask(mask), mask.shape), mask)


def test_polygons_crowds_and_several_annotations_of_a_class(tmp_path):
    content = {
        "images": [{"id": 3, "file_name": "a.jpg", "width": 8, "height": 6}],
        "categories": [{"id": 0, "name": "others"}, {"id": 1, "name": "human"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2], [4, 0, 6, 0, 6, 2]]},
            {"id": 2, "image_id": 3, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3, 3, 0, 3.0]], "iscrowd": 0},
            {
                "id": 3,
                "image_id": 3,
                "category_id": 0,
                "iscrowd": 1,
                "segmentation": {"size": [6, 8], "counts": [42, 6]},
            },
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = read_coco_annotation(tmp_path / "a.json").numpy()
    opened = open_coco(tmp_path / "a.json")
    expected = np.full((6, 8), 255, np.uint8)
    for each in opened.anns.values():
        expected[opened.annToMask(each) > 0] = each["category_id"]
    assert np.array_equal(found, expected)
    assert (found[:, 7] == 0).all()
    assert np.count_nonzero(found == 1) > 9
