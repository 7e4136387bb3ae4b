"""Public data sets: complete mapping tables, layouts on tiny replicas, splits, resuming and errors."""

import json
import os
import shutil

import numpy as np
import PIL.Image
import pytest
import yaml
from scipy.io import savemat
from support import public_data as replicas
from support.commands import run
from support.public_data import quadrants, save_map, save_photo

from transformers_massformer.data.layout import find_splits
from transformers_massformer.data.public.layouts import FINDERS
from transformers_massformer.data.public.names import PublicDataSet
from transformers_massformer.data.public.tables import build_lookup, read_table, tables_folder


OTHERS, HUMAN, BUILDING, VEGETATION, GROUND, SKY, WATER, NONE = 0, 1, 2, 3, 4, 5, 6, 255
# Ids of all classes, and names with their labels, from the owners' lists.
TABLES = {
    "ade20k": (range(151), {"wall": BUILDING, "mountain": GROUND, "car": OTHERS, "lake": WATER, "grass": VEGETATION}),
    "camvid": (None, {"Pedestrian": HUMAN, "Void": NONE, "Wall": BUILDING, "Animal": OTHERS, "Road": GROUND}),
    "camvid-segnet": (range(12), {"Bicyclist": HUMAN, "Unlabelled": NONE, "Pavement": GROUND, "Car": OTHERS}),
    "cityscapes": (range(-1, 34), {"rider": HUMAN, "terrain": VEGETATION, "wall": BUILDING, "out of roi": NONE}),
    "clothing-co-parsing": (range(59), {"null": NONE, "bag": OTHERS, "skin": HUMAN, "t-shirt": HUMAN}),
    "coco-stuff": ([*range(182), 255], {"person": HUMAN, "sea": WATER, "clouds": SKY, "dog": OTHERS, "hill": GROUND}),
    "labelmefacade": (None, {"window": BUILDING, "door": BUILDING, "various": NONE, "car": OTHERS}),
    "mapillary-vistas-1.2": (range(66), {"human--person": HUMAN, "nature--water": WATER, "marking--general": GROUND}),
    "mapillary-vistas-2.0": (range(124), {"human--person--individual": HUMAN, "void--ground": GROUND}),
    "penn-fudan": (range(2), {"pedestrian": HUMAN, "background": NONE}),
    "stanford-background": (range(-1, 8), {"mountain": GROUND, "foreground object": NONE, "grass": VEGETATION}),
}
NUM_COLOURS = {"camvid": 32, "labelmefacade": 9}


def names_of(table):
    values = read_table(table).values
    return sorted(values, key=values.__getitem__)


def test_every_table_is_tested():
    assert {path.stem for path in tables_folder().iterdir()} == TABLES.keys()
    assert FINDERS.keys() == set(PublicDataSet)


@pytest.mark.parametrize("name", TABLES)
def test_every_class_is_mapped_exactly_once(name):
    # YAML keeps the last of repeated keys; the nodes still hold all.
    root = yaml.compose((tables_folder() / f"{name}.yaml").read_text())
    groups = [node for key, node in root.value if key.value not in ("title", "complete")]
    written = [key.value for group in groups for key, _ in group.value]
    table = read_table(name)
    assert sorted(written) == sorted(table.labels) == sorted(table.values)
    ids, known = TABLES[name]
    if ids is None:
        assert len(set(table.values.values())) == NUM_COLOURS[name] == len(written)
        assert all(0 <= channel <= 255 for colour in table.values.values() for channel in colour)
    else:
        assert sorted(table.values.values()) == sorted(ids)
    assert {each: table.labels[each] for each in known} == known


def check(output, expected, counts, image_suffix=".jpg"):
    """Check a prepared folder: its splits, and that every label map has the expected quadrants."""
    splits = find_splits(output)
    assert {name: len(split.pairs) for name, split in splits.items()} == counts
    for split in splits.values():
        assert not split.faults
        for pair in split.pairs:
            label = PIL.Image.open(pair.label)
            assert label.mode == "P"
            np.testing.assert_array_equal(label, quadrants(expected))
            assert pair.image.suffix == image_suffix


CASES = {
    # sky, person, sea, unlabelled
    "ade20k": (replicas.write_ade20k, [3, 13, 27, 0], [SKY, HUMAN, WATER, NONE], {"train": 2, "validation": 1}),
    # person, bush (97 of the list), river (148), unlabelled
    "coco-stuff": (
        replicas.write_coco_stuff,
        [0, 96, 147, 255],
        [HUMAN, VEGETATION, WATER, NONE],
        {"train": 1, "validation": 1},
    ),
    # road, building, rider, static
    "cityscapes": (
        replicas.write_cityscapes,
        [7, 11, 25, 4],
        [GROUND, BUILDING, HUMAN, NONE],
        {"train": 1, "validation": 1},
    ),
    # window, sky, car, various
    "labelmefacade": (
        replicas.write_labelmefacade,
        [(0, 0, 128), (0, 128, 128), (128, 0, 128), (0, 0, 0)],
        [BUILDING, SKY, OTHERS, NONE],
        {"train": 1, "validation": 1},
    ),
    # Child, Tree, LaneMkgsDriv, Void; the last tenth of each video
    "camvid": (
        replicas.write_camvid,
        [(192, 128, 64), (128, 128, 0), (128, 0, 192), (0, 0, 0)],
        [HUMAN, VEGETATION, GROUND, NONE],
        {"train": 27, "validation": 3},
    ),
    # sky, pole, pedestrian, unlabelled
    "camvid segnet": (
        replicas.write_camvid_segnet,
        [0, 2, 9, 11],
        [SKY, OTHERS, HUMAN, NONE],
        {"train": 1, "validation": 1, "test": 1},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_labels_and_splits(case, tmp_path):
    write, values, expected, counts = CASES[case]
    write(tmp_path / "source", values)
    run("prepare", case.partition(" ")[0], tmp_path / "source", "--output", tmp_path / "out")
    check(tmp_path / "out", expected, counts, ".png" if case.startswith(("camvid", "city")) else ".jpg")


@pytest.mark.parametrize("version", ["1.2", "2.0"])
def test_mapillary_ids_come_from_the_owners_file(version, tmp_path):
    names = names_of(f"mapillary-vistas-{version}")[::-1]
    values = [names.index(name) for name in ("nature--sky", "nature--terrain", "nature--mountain", "void--unlabeled")]
    layout = {"1.2": ("config.json", "labels"), "2.0": ("config_v2.0.json", "v2.0/labels")}[version]
    replicas.write_mapillary(tmp_path / "source", values, names, *layout)
    run("prepare", "mapillary-vistas", tmp_path / "source", "--output", tmp_path / "out")
    check(tmp_path / "out", [SKY, VEGETATION, GROUND, NONE], {"train": 1, "validation": 1})
    replicas.write_mapillary(tmp_path / "other", values, [*names[1:], "nature--lava"], *layout)
    result = run("prepare", "mapillary-vistas", tmp_path / "other", "--output", tmp_path / "out2", code=1)
    assert layout[0] in result.output
    assert "nature--lava" in result.output


def test_sets_without_a_split_get_a_share_chosen_by_name(tmp_path):
    # tree, water, foreground object, unknown
    replicas.write_stanford(tmp_path / "stanford", [1, 4, 7, -1])
    replicas.write_penn_fudan(tmp_path / "penn", [0, 1, 2, 0])
    classes = names_of("clothing-co-parsing")
    replicas.write_clothing_co_parsing(tmp_path / "ccp", [0, classes.index("bag"), 41, 51], classes)
    for name, folder, expected, suffix in (
        ("stanford-background", "stanford", [VEGETATION, WATER, NONE, NONE], ".jpg"),
        ("penn-fudan", "penn", [NONE, HUMAN, HUMAN, NONE], ".png"),
        ("clothing-co-parsing", "ccp", [NONE, OTHERS, HUMAN, HUMAN], ".jpg"),
    ):
        output = tmp_path / f"{folder}-out"
        run("prepare", name, tmp_path / folder, "--output", output, "--val-share", "0.25")
        counts = {split: len(found.pairs) for split, found in find_splits(output).items()}
        assert sum(counts.values()) == 40
        assert 3 <= counts["validation"] <= 17
        check(output, expected, counts, suffix)
    # With fewer photographs, the rest stay where they were.
    chosen = {path.name for path in (tmp_path / "stanford-out" / "annotations" / "val").iterdir()}
    for index in range(0, 40, 2):
        (tmp_path / "stanford" / "images" / f"{index:07}.jpg").unlink()
    run("prepare", "stanford-background", tmp_path / "stanford", "--output", tmp_path / "half", "--val-share", "0.25")
    half = {path.name for path in (tmp_path / "half" / "annotations" / "val").iterdir()}
    assert half == {name for name in chosen if int(name.removesuffix(".png")) % 2}


def test_of_a_video_the_last_frames_are_for_validation(tmp_path):
    replicas.write_camvid(tmp_path / "source", [(0, 0, 0)] * 4)
    run("prepare", "camvid", tmp_path / "source", "--output", tmp_path / "out")
    names = {path.stem for path in (tmp_path / "out" / "images" / "val").iterdir()}
    assert names == {"0001TP_000009", "Seq05VD_f00018", "Seq05VD_f00019"}


@pytest.fixture
def ade20k(tmp_path):
    replicas.write_ade20k(tmp_path / "ade", [3, 13, 27, 0])
    return tmp_path / "ade"


def test_photos_are_linked_or_copied_unchanged(ade20k, tmp_path, monkeypatch):
    photo = ade20k / "images" / "training" / "ADE_train_1.jpg"
    run("prepare", "ade20k", ade20k, "--output", tmp_path / "out")
    assert (tmp_path / "out" / "images" / "train" / photo.name).samefile(photo)

    def refuse(*arguments):
        raise OSError("no links")

    monkeypatch.setattr(os, "link", refuse)
    run("prepare", "ade20k", ade20k, "--output", tmp_path / "copies")
    copy = tmp_path / "copies" / "images" / "train" / photo.name
    assert copy.read_bytes() == photo.read_bytes()
    assert not copy.samefile(photo)


def test_finished_photos_are_skipped(ade20k, tmp_path):
    output = tmp_path / "out"
    run("prepare", "ade20k", ade20k, "--output", output)
    kept = output / "annotations" / "train" / "ADE_train_1.png"
    (output / "annotations" / "train" / "ADE_train_2.png").unlink()
    before = kept.stat().st_mtime_ns
    result = run("prepare", "ade20k", ade20k, "--output", output)
    assert "1 of 3 photos" in result.output
    assert kept.stat().st_mtime_ns == before
    check(output, [SKY, HUMAN, WATER, NONE], {"train": 2, "validation": 1})


def test_the_record_says_what_the_folder_holds(ade20k, tmp_path):
    run("prepare", "ade20k", ade20k, "--output", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert record["data_set"] == "ade20k"
    assert record["annotated_classes"] == ["human", "building", "vegetation", "ground", "sky", "water"]
    assert record["mapping"]["human"] == ["person"]
    assert record["mapping"]["ignored"] == ["unlabelled"]


def prepare_wrongly(name, source, tmp_path):
    result = run("prepare", name, source, "--output", tmp_path / "out", code=1)
    assert len(result.output.strip().splitlines()) == 1
    return result.output


@pytest.mark.parametrize("name", PublicDataSet)
def test_a_wrong_folder_is_told_the_layout(name, tmp_path):
    (tmp_path / "source" / "pictures").mkdir(parents=True)
    message = prepare_wrongly(name, tmp_path / "source", tmp_path)
    assert f"The layout of {name} is {FINDERS[name][1]}" in message
    assert "it contains pictures" in message
    assert not (tmp_path / "out").exists()


def test_unknown_values_are_named(ade20k, tmp_path):
    save_map(ade20k / "annotations" / "training" / "ADE_train_2.png", [3, 13, 27, 151])
    message = prepare_wrongly("ade20k", ade20k, tmp_path)
    assert "ADE_train_2.png has 24 pixels of an unknown class, such as the value 151" in message
    assert not (tmp_path / "out" / "annotations" / "train" / "ADE_train_2.png").exists()
    replicas.write_labelmefacade(tmp_path / "facade", [(0, 0, 128), (0, 128, 128), (1, 2, 3), (0, 0, 0)])
    message = prepare_wrongly("labelmefacade", tmp_path / "facade", tmp_path / "second")
    assert "such as the colour (1, 2, 3)" in message


def test_the_largest_id_of_the_owners_list_is_no_value_of_a_stuffthingmap(tmp_path):
    replicas.write_coco_stuff(tmp_path / "source", [0, 96, 147, 182])
    assert "the value 182" in prepare_wrongly("coco-stuff", tmp_path / "source", tmp_path)


def test_missing_and_damaged_files_are_named(ade20k, tmp_path):
    label = ade20k / "annotations" / "training" / "ADE_train_2.png"
    content = label.read_bytes()
    label.unlink()
    message = prepare_wrongly("ade20k", ade20k, tmp_path)
    assert f"1 label maps of 3 are missing, such as {label}" in message
    label.write_bytes(content[:50])
    assert str(label) in prepare_wrongly("ade20k", ade20k, tmp_path)
    save_map(label, [(1, 2, 3)] * 4)
    assert f"{label} has mode RGB" in prepare_wrongly("ade20k", ade20k, tmp_path)
    label.write_bytes(content)
    photo = PIL.Image.open(ade20k / "images" / "training" / "ADE_train_2.jpg").resize((5, 5))
    photo.save(ade20k / "images" / "training" / "ADE_train_2.jpg")
    message = prepare_wrongly("ade20k", ade20k, tmp_path)
    assert str(label) in message
    assert "12 x 8 for a photograph of 5 x 5" in message


def test_files_of_other_formats_are_named(tmp_path):
    replicas.write_stanford(tmp_path / "stanford", [1, 4, 7, -1])
    label = tmp_path / "stanford" / "labels" / "0000003.regions.txt"
    label.write_text("1 2\n3 tree\n")
    assert str(label) in prepare_wrongly("stanford-background", tmp_path / "stanford", tmp_path)
    replicas.write_clothing_co_parsing(tmp_path / "ccp", [0] * 4, names_of("clothing-co-parsing"))
    label = tmp_path / "ccp" / "annotations" / "pixel-level" / "0003.mat"
    savemat(label, {"tags": np.zeros(3)})
    assert f"{label} has no readable variable groundtruth" in prepare_wrongly(
        "clothing-co-parsing", tmp_path / "ccp", tmp_path / "second"
    )


def test_the_output_belongs_to_one_data_set(ade20k, tmp_path):
    run("prepare", "ade20k", ade20k, "--output", tmp_path / "out")
    replicas.write_coco_stuff(tmp_path / "coco", [0] * 4)
    message = prepare_wrongly("coco-stuff", tmp_path / "coco", tmp_path)
    assert f"holds ADE20K prepared from {ade20k}" in message
    assert "Choose another --output" in message
    shutil.rmtree(tmp_path / "out")
    save_photo(tmp_path / "out" / "photo.jpg")
    assert "is not empty" in prepare_wrongly("ade20k", ade20k, tmp_path)


def test_an_unusable_share_is_refused(ade20k, tmp_path):
    for share, message in (("1.5", "between 0 and 1"), ("0.000001", "val of 3 photographs is empty")):
        result = run("prepare", "ade20k", ade20k, "--output", tmp_path / "out", "--val-share", share, code=1)
        assert message in result.output


def test_two_photos_of_one_name_are_refused(tmp_path):
    replicas.write_cityscapes(tmp_path / "source", [7, 11, 25, 4])
    for kind in ("leftImg8bit", "gtFine"):
        shutil.copytree(tmp_path / "source" / kind / "train" / "aachen", tmp_path / "source" / kind / "train" / "copy")
    assert "2 photographs of the split train" in prepare_wrongly("cityscapes", tmp_path / "source", tmp_path)


def test_the_lookup_holds_every_class_and_nothing_else():
    table = read_table("cityscapes")
    lookup = build_lookup(table)
    for name, value in table.values.items():
        assert lookup[value] == table.labels[name]
    assert np.count_nonzero(lookup != 254) == len(table.values)
