"""Class names beside data, their sources, and what disagrees."""

import json

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import run

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.data.class_names import (
    data_classes,
    read_class_names,
    read_given_names,
    write_class_names,
    write_own_class_names,
)
from transformers_massformer.data.layout import find_splits


@pytest.mark.parametrize(
    "content",
    [
        "others\ngebäude\na b\n",
        "others\r\ngebäude\r\na b",
        "\ufeffothers\rgebäude\ra b\r",
        "# names\n\n  others \nGEBÄUDE\n# more\na b\n\n\n".replace("GEBÄUDE", "geba\u0308ude"),
    ],
)
def test_a_names_file_is_read_however_it_was_saved(tmp_path, content):
    (tmp_path / "classes.txt").write_bytes(content.encode())
    assert read_class_names(tmp_path) == ["others", "gebäude", "a b"]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("classes.txt", b"", "has no class names"),
        ("classes.txt", b"# nothing\n", "has no class names"),
        ("classes.txt", b"sky\n\nwater\n", "blank line after 'sky'"),
        ("classes.txt", b"sky\nSky\n", "the same name"),
        ("classes.txt", b"0 sky\n1 water\n", "numbered lines"),
        ("classes.txt", b"1: sky\n2: water\n", "numbered lines"),
        ("classes.txt", "gebäude\n".encode("latin-1"), "is not UTF-8"),
        ("classes.txt", "sky\n".encode("utf-16"), "is not UTF-8|control characters"),
        ("id2label.json", b'{"0": "sky", "2": "water"}', "gaps"),
        ("id2label.json", b'{"0": "sky", "0": "water"}', "key '0' occurs twice"),
        ("id2label.json", b'{"sky": 0}', "not the id"),
        ("id2label.json", b'["sky"]', "must contain one object"),
        ("id2label.json", b'{"0": null}', "must be text"),
        ("id2label.json", b"{", "not valid JSON"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, file, content, words):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_class_names(tmp_path)


def test_both_files_must_agree(tmp_path):
    assert read_class_names(tmp_path) is None
    # Twelve ids, which sort differently as text.
    names = [f"class {index}" for index in range(12)]
    (tmp_path / "id2label.json").write_text(json.dumps({str(index): names[index] for index in reversed(range(12))}))
    assert read_class_names(tmp_path) == names
    write_class_names(tmp_path, names)
    assert read_class_names(tmp_path) == names
    write_class_names(tmp_path, names[::-1])
    with pytest.raises(ValueError, match=r"classes.txt and .*id2label.json differ: 0 class 11.*; and 0 class 0"):
        read_class_names(tmp_path)


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6))
def test_written_names_are_read_back(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    try:
        write_class_names(folder, names)
    except ValueError:
        assert not list(folder.iterdir())
        return
    found = read_class_names(folder)
    write_class_names(folder, found)
    assert read_class_names(folder) == found
    assert len(found) == len(names)


def test_only_own_names_are_written_beside_data(tmp_path):
    write_own_class_names(tmp_path, MASS13K_LABELS)
    assert not list(tmp_path.iterdir())
    write_own_class_names(tmp_path, ["a", "b"])
    # A file of other classes must not stay.
    write_own_class_names(tmp_path, MASS13K_LABELS)
    assert read_class_names(tmp_path) == list(MASS13K_LABELS)


def test_given_names_are_names_a_file_or_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_given_names(None) is None
    assert read_given_names(["sky"]) == ["sky"]
    (tmp_path / "sky").mkdir()
    assert read_given_names(["sky"]) == ["sky"]
    (tmp_path / "names.txt").write_text("a\nb\n")
    (tmp_path / "names.json").write_text('{"1": "b", "0": "a"}')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "x", "id2label": {"1": "b", "0": "a"}}')
    for value in ("names.txt", "names.json", "model", "model/config.json"):
        assert read_given_names([value]) == ["a", "b"], value
    with pytest.raises(FileNotFoundError):
        read_given_names(["nothing.txt"])


@pytest.fixture
def data(tmp_path):
    """Write a photo with a label map of two classes."""
    for folder in ("images", "annotations"):
        (tmp_path / folder / "train").mkdir(parents=True)
    PIL.Image.new("RGB", (32, 32)).save(tmp_path / "images" / "train" / "a.jpg")
    PIL.Image.fromarray(np.tri(32, dtype=np.uint8)).save(tmp_path / "annotations" / "train" / "a.png")
    return tmp_path


def write_coco(data, categories):
    """Replace the label map by one in COCO format with these categories."""
    (data / "annotations" / "train" / "a.png").unlink(missing_ok=True)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 32, "height": 32}],
        "annotations": [],
        "categories": [{"id": index, "name": name} for index, name in categories.items()],
    }
    (data / "annotations" / "train" / "a.json").write_text(json.dumps(content))


def test_names_come_from_the_first_source_there_is(data):
    classes = data_classes(data, find_splits(data))
    assert classes.is_assumed
    assert classes.names == list(MASS13K_LABELS)
    assert data_classes(data, find_splits(data), added=["car"]).names[7:] == ["car"]
    assert data_classes(data, find_splits(data), ["a", "b"]).names == ["a", "b"]
    write_class_names(data, ["a", "b"])
    assert data_classes(data, find_splits(data)).names == ["a", "b"]
    with pytest.raises(ValueError, match="--labels and .*classes.txt differ: 0 b, 1 a; and 0 a, 1 b"):
        data_classes(data, find_splits(data), ["b", "a"])
    # Results of a model, written where label maps belong.
    write_class_names(next((data / "annotations").iterdir()), ["b", "a"])
    with pytest.raises(ValueError, match="with 0 b, 1 a; the classes of .*classes.txt are 0 a, 1 b. Move it to"):
        data_classes(data, find_splits(data))
    write_class_names(next((data / "annotations").iterdir()), ["A", "b"])
    with pytest.raises(ValueError, match="the same name"):
        data_classes(data, find_splits(data), added=["A"])


@pytest.mark.parametrize(
    ("categories", "names"),
    [
        ({0: "a", 1: "b"}, ["a", "b"]),
        ({2: "building"}, list(MASS13K_LABELS)),
        ({7: "car"}, [*MASS13K_LABELS, "car"]),
    ],
)
def test_coco_categories_name_classes(data, categories, names):
    write_coco(data, categories)
    assert data_classes(data, find_splits(data)).names == names


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ({0: "b", 1: "a"}, "b is 0, the class 1"),
        ({1: "c"}, "1 is c, the class b"),
    ],
)
def test_coco_categories_that_differ_are_refused(data, categories, words):
    write_coco(data, categories)
    write_class_names(data, ["a", "b"])
    with pytest.raises(ValueError, match=words):
        data_classes(data, find_splits(data))


def test_commands_use_the_names_of_the_data(data, tmp_path):
    write_class_names(data, ["Straße", "grün"])
    run("stats", data, "--output", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "statistics.json").read_text(encoding="utf-8"))
    assert list(summary["train"]["pixel_share"]) == ["Straße", "grün"]
    assert "area_grün" in (tmp_path / "out" / "images.csv").read_text(encoding="utf-8")
    run("stats", data, "--verify")
    coco, png = tmp_path / "coco", tmp_path / "png"
    run("annotations", data, "--format", "coco-rle", "--output", coco)
    content = json.loads(next(coco.rglob("*.json")).read_text(encoding="utf-8"))
    assert [category["name"] for category in content["categories"]] == ["Straße", "grün"]
    assert read_class_names(coco) == ["Straße", "grün"]
    (data / "classes.txt").unlink()
    run("annotations", data, "--format", "png", "--output", png)
    assert read_class_names(png) is None
    # Label maps of two sets of classes must not lie in one folder.
    result = run("annotations", data, "--format", "png", "--labels", "a", "--labels", "b", "--output", png, code=1)
    assert "holds label maps of other classes" in result.output
