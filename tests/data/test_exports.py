"""Exports of annotation tools become data sets in MaSS13K's layout."""

import json
import re

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from support.commands import run
from support.replica import stored_as

from transformers_massformer.data.exports.cvat import read_label_map
from transformers_massformer.data.exports.label_studio import decode_brush
from transformers_massformer.data.layout import find_splits
from transformers_massformer.data.reading import read_pair


SIZE = (12, 16)
CLASSES = ["sky", "tree", "road"]
COLOURS = {"background": (0, 0, 0), "sky": (50, 183, 250), "tree": (0, 128, 0), "road": (128, 64, 128)}
# 0: nobody has annotated the pixel; n: class n - 1.
DRAWN = np.zeros(SIZE, np.uint8)
DRAWN[:5], DRAWN[5:9, :7], DRAWN[8:, 3:] = 1, 2, 3


def write_photo(path, size=SIZE, orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = PIL.Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    upright = np.full((*size, 3), 90, np.uint8)
    PIL.Image.fromarray(stored_as(upright, orientation or 1)).save(path, exif=exif)


def rle_pack(values: np.ndarray) -> list[int]:
    """Encode values as Label Studio does, by its description: runs of 8, 256 and 65,536, and single values."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{bits - 1:04b}" for bits in (3, 4, 8, 16))
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(values)], strict=True):
        length, value = int(stop - start), int(values[start])
        while length:
            part = min(length, 2**16)
            index, width = next((i, width) for i, width in enumerate((3, 4, 8, 16)) if part <= 2**width)
            bits += ("0" if part == 1 else "1") + f"{index:02b}{part - 1:0{width}b}{value:08b}"
            length -= part
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def brush(mask: np.ndarray) -> list[int]:
    return rle_pack(np.repeat(mask.reshape(-1, 1) * 255, 4, axis=1).reshape(-1))


def region(mask: np.ndarray, name: str, **changes) -> dict:
    height, width = mask.shape
    value = {"format": "rle", "rle": brush(mask), "brushlabels": [name]}
    fields = {"original_width": width, "original_height": height, "image_rotation": 0}
    return {"id": name, "type": "brushlabels", "value": value, **fields, **changes}


def write_cvat(folder, palette=True):
    for split, name in (("Train", "a"), ("val", "b.2")):
        write_photo(folder / "JPEGImages" / f"{name}.jpg")
        path = folder / "SegmentationClass" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = PIL.Image.fromarray(np.array(list(COLOURS.values()), np.uint8)[DRAWN])
        if palette:
            # Indices in another order than the classes: colours decide.
            picture = picture.quantize(4)
            assert not np.array_equal(np.asarray(picture), DRAWN)
        picture.save(path)
        listed = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text(f"{name}\n")
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in COLOURS.items()]
    (folder / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]))
    return folder


def write_label_studio(folder):
    tasks = []
    for number, name in enumerate(("a", "b.2")):
        write_photo(folder / f"{name}.jpg")
        results = [region(index + 1 == DRAWN, label) for index, label in enumerate(CLASSES)]
        results.append({"type": "choices", "value": {"choices": ["outdoor"]}})
        cancelled = {"id": 2, "was_cancelled": True, "result": [region(DRAWN == 1, "road")]}
        annotations = [cancelled, {"id": 1, "was_cancelled": False, "result": results}]
        image = (f"/data/upload/1/3ca5fc1f-{name}.jpg", f"/data/local-files/?d=some%2Ffolder%2F{name}.jpg")[number]
        tasks.append({"id": number, "data": {"image": image}, "annotations": annotations})
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder


def write_label_studio_pngs(folder):
    for number, name in enumerate(("a", "b.2")):
        write_photo(folder / f"{name}.jpg")
        for index, label in enumerate(CLASSES):
            mask = PIL.Image.fromarray(((index + 1 == DRAWN) * 255).astype(np.uint8))
            mask.save(folder / f"task-{number}-annotation-7-by-1-tag-{label}-0.png")
    tasks = [{"id": i, "image": f"/data/upload/1/3ca5fc1f-{name}.jpg"} for i, name in enumerate(("a", "b.2"))]
    (folder / "tasks.json").write_text(json.dumps(tasks))
    return folder


def write_coco(folder):
    for split, name in (("train", "a"), ("val", "b.2")):
        write_photo(folder / "images" / f"{name}.jpg")
        annotations = []
        for index in range(3):
            counts = coco.encode(np.asfortranarray(index + 1 == DRAWN, dtype=np.uint8))["counts"].decode()
            encoded = {"size": list(SIZE), "counts": counts}
            annotations.append({"id": index, "image_id": 17, "category_id": 10 * index + 3, "segmentation": encoded})
        image = {"id": 17, "file_name": f"{name}.jpg", "width": SIZE[1], "height": SIZE[0]}
        categories = [{"id": 10 * index + 3, "name": label} for index, label in enumerate(CLASSES)]
        content = {"images": [image], "annotations": annotations, "categories": categories}
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


TOOLS = {
    "cvat": write_cvat,
    "cvat-rgb": lambda folder: write_cvat(folder, palette=False),
    "label-studio": write_label_studio,
    "label-studio-png": write_label_studio_pngs,
    "coco": write_coco,
}


def convert(tool, source, output, *options, code=0):
    name = tool.removesuffix("-rgb").removesuffix("-png")
    result = run("import", source, "--from", name, "--output", output, *options, code=code)
    return " ".join(result.output.split())


def label_maps(output) -> dict[str, np.ndarray]:
    found = {}
    for split in find_splits(output).values():
        assert not split.faults
        for pair in split.pairs:
            found[pair.image_id] = read_pair(pair.image, pair.label, ("photo", "label"))[1].numpy()
    return found


@pytest.mark.parametrize("tool", TOOLS)
def test_names_decide_the_classes_of_every_tool(tmp_path, tool):
    source = TOOLS[tool](tmp_path / "export")
    shown = convert(tool, source, tmp_path / "data")
    names = (tmp_path / "data" / "classes.txt").read_text().split()
    assert sorted(names) == sorted(CLASSES)
    expected = np.array([255, *(names.index(label) for label in CLASSES)], np.uint8)[DRAWN]
    found = label_maps(tmp_path / "data")
    assert found.keys() == {"a", "b.2"}
    assert all(np.array_equal(label_map, expected) for label_map in found.values())
    assert f"{np.mean(DRAWN == 0):.1%} of the pixels have no class" in shown
    if "label-studio" not in tool:
        assert [len(split.pairs) for split in find_splits(tmp_path / "data").values()] == [1, 1]
    # The same again changes nothing, and what people have changed stays.
    convert(tool, source, tmp_path / "data")
    label = next((tmp_path / "data" / "annotations").rglob("*.png"))
    PIL.Image.new("L", SIZE[::-1], 1).save(label)
    assert "exists and differs from" in convert(tool, source, tmp_path / "data", code=1)
    convert(tool, source, tmp_path / "data", "--overwrite")
    assert np.array_equal(label_maps(tmp_path / "data")[label.stem], expected)


@pytest.mark.parametrize("tool", TOOLS)
def test_given_labels_and_a_background(tmp_path, tool):
    source = TOOLS[tool](tmp_path / "export")
    labels = [option for name in ("road", "water", "sky", "rest", "tree") for option in ("--labels", name)]
    convert(tool, source, tmp_path / "data", *labels, "--background", "rest", "--split", "test")
    for label_map in label_maps(tmp_path / "data").values():
        assert np.array_equal(label_map, np.array([3, 2, 4, 0], np.uint8)[DRAWN])
    shown = convert(tool, source, tmp_path / "other", *labels[:8], code=1)
    assert re.search(r"unknown class 'tree'; the classes are 0 road, 1 water, 2 sky, 3 rest\. Add it", shown)
    shown = convert(tool, source, tmp_path / "data", "--labels", "sky", "--labels", "tree", code=1)
    assert "has other classes: 0 road, 1 water, 2 sky, 3 rest, 4 tree" in shown


def test_a_background_becomes_the_first_class(tmp_path):
    convert("cvat", write_cvat(tmp_path / "export"), tmp_path / "data", "--background", "others")
    assert (tmp_path / "data" / "classes.txt").read_text().split() == ["others", *CLASSES]
    assert all(np.array_equal(label_map, DRAWN) for label_map in label_maps(tmp_path / "data").values())


def test_overlaps_are_refused_or_the_last_one_wins(tmp_path):
    write_photo(tmp_path / "a.jpg")
    masks = np.zeros((2, *SIZE), bool)
    masks[0, :6], masks[1, 4:] = True, True
    result = [region(masks[0], "sky"), region(masks[1], "tree"), region(masks[1], "tree")]
    task = {"id": 5, "data": {"image": "a.jpg"}, "annotations": [{"id": 1, "result": result}]}
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task]))
    shown = convert("label-studio", path, tmp_path / "data", code=1)
    assert "task 5: tree overlaps sky at 32 pixels. Assign each pixel to one class, or pass --overlaps last" in shown
    shown = convert("label-studio", path, tmp_path / "data", "--overlaps", "last")
    assert "32 pixels had several classes; the last one drawn was kept" in shown
    (label_map,) = label_maps(tmp_path / "data").values()
    assert np.array_equal(label_map, np.where(masks[1], 1, 0))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_masks_lie_on_the_upright_photo(tmp_path, orientation):
    source = write_cvat(tmp_path / "export")
    write_photo(source / "JPEGImages" / "a.jpg", orientation=orientation)
    convert("cvat", source, tmp_path / "data")
    found = label_maps(tmp_path / "data")
    assert np.array_equal(found["a"], found["b.2"])


def test_polygons_of_label_studio_are_percentages(tmp_path):
    write_photo(tmp_path / "a.jpg", (100, 200))
    value = {"points": [[10, 20], [50, 20], [50, 80], [10, 80]], "polygonlabels": ["sky"]}
    result = {"type": "polygonlabels", "value": value, "original_width": 200, "original_height": 100}
    task = {"id": 5, "data": {"image": "s3://bucket/a.jpg"}, "annotations": [{"id": 1, "result": [result]}]}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    convert("label-studio", tmp_path / "export.json", tmp_path / "data")
    (label_map,) = label_maps(tmp_path / "data").values()
    expected = np.full((100, 200), 255)
    expected[20:80, 20:100] = 0
    assert np.count_nonzero(label_map != expected) <= 2 * (60 + 80)
    assert label_map[50, 60] == 0


@settings(max_examples=80, deadline=None)
@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_brush_masks_are_decoded(size, share, seed):
    mask = np.random.default_rng(seed).random(size) < share
    assert np.array_equal(decode_brush(brush(mask), size), mask)


def test_runs_of_several_single_values_are_decoded():
    # What the format allows, if not what Label Studio writes: the values 10, 200 and 255, then a run.
    bits = f"{4:032b}{7:05b}" + "".join(f"{bits - 1:04b}" for bits in (3, 4, 8, 16))
    bits += "0" + "00" + "010" + f"{10:08b}{200:08b}{255:08b}" + "1" + "00" + "000" + f"{130:08b}"
    bits += "0" * (-len(bits) % 8)
    assert decode_brush([int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)], (1, 1)).tolist() == [[True]]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda rle: rle[:-3], "its run lengths are damaged"),
        (lambda rle: [0, 0, 0, 9, *rle[4:]], "its mask has 9 values, but a picture of 16 x 12"),
        (lambda rle: [*rle, 300], "its run lengths are damaged"),
        (lambda rle: [], "its run lengths are damaged"),
    ],
)
def test_damaged_brush_masks_are_refused(change, text):
    with pytest.raises(ValueError, match=text):
        decode_brush(change(brush(DRAWN == 1)), SIZE)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def a_smaller_photo(folder):
    write_photo(next(folder.rglob("a.jpg")), (12, 15))


def a_second_photo_of_the_name(folder):
    path = next(folder.rglob("a.jpg"))
    for place in ("x", "y"):
        write_photo(path.parent / place / "a.jpg")
    path.unlink()


FAULTS = {
    "photo missing": (None, lambda f: next(f.rglob("a.jpg")).unlink(), r"there is no photo .*a.* in .*--photos"),
    "photo of another size": (None, a_smaller_photo, r"is 16 x 12 for a photograph of 15 x 12"),
    "two photos of a name": (None, a_second_photo_of_the_name, r"a\S* may be \S+ or \S+\. Pass the folder"),
    "labelmap.txt missing": (
        "cvat",
        lambda f: (f / "labelmap.txt").unlink(),
        r"Export the task as `Segm",
    ),
    "a colour without a name": (
        "cvat",
        lambda f: (f / "labelmap.txt").write_text("background:0,0,0::\nsky:50,183,250::\nroad:128,64,128::"),
        r"a\.png has the colours 0,128,0, which labelmap\.txt does not name",
    ),
    "a malformed colour": (
        "cvat",
        lambda f: (f / "labelmap.txt").write_text("sky:50,183::"),
        "'sky:50,183::' is not NAME:RED,GREEN,BLUE",
    ),
    "two classes of a colour": (
        "cvat",
        lambda f: (f / "labelmap.txt").write_text("sky:5,5,5::\ntree:5,5,5::"),
        "the colour or the name of 'tree:5,5,5::' occurs twice",
    ),
    "a listed mask missing": (
        "cvat",
        lambda f: (f / "SegmentationClass" / "a.png").unlink(),
        r"has no a\.png, which ImageSets lists",
    ),
    "two annotators": (
        "label-studio",
        lambda f: edit(f / "export.json", lambda tasks: tasks[0]["annotations"][0].pop("was_cancelled")),
        r"task 0 has 2 annotations \(2, 1\)\. Keep one per task",
    ),
    "a rectangle": (
        "label-studio",
        lambda f: edit(
            f / "export.json",
            lambda tasks: tasks[0]["annotations"][1]["result"].append(
                {**region(DRAWN == 1, "sky"), "type": "rectanglelabels", "value": {"x": 1, "labels": ["sky"]}}
            ),
        ),
        "rectanglelabels is no mask. Only brush masks and polygons",
    ),
    "a photo with boxes alone": (
        "label-studio",
        lambda f: edit(
            f / "export.json",
            lambda tasks: [
                task["annotations"][-1].update(
                    result=[
                        {**region(DRAWN == 1, "sky"), "type": "ellipselabels", "value": {"ellipselabels": ["sky"]}}
                    ]
                )
                for task in tasks
            ],
        ),
        "ellipselabels is no mask. Only brush masks and polygons",
    ),
    "a rotated picture": (
        "label-studio",
        lambda f: edit(
            f / "export.json", lambda tasks: tasks[0]["annotations"][1]["result"][0].update(image_rotation=90)
        ),
        "rotated by 90 degrees",
    ),
    "a region without a class": (
        "label-studio",
        lambda f: edit(
            f / "export.json", lambda tasks: tasks[0]["annotations"][1]["result"][0]["value"].update(brushlabels=[])
        ),
        "region sky: it has 0 classes",
    ),
    "not a list of tasks": (
        "label-studio",
        lambda f: (f / "export.json").write_text("{}"),
        "is not an export of Label Studio: a list of tasks",
    ),
    "a PNG of another name": (
        "label-studio-png",
        lambda f: PIL.Image.new("L", (2, 2)).save(f / "task-1.png"),
        r"is not named task-1-annotation-1-by-1-tag-CLASS-0\.png",
    ),
    "an unknown category": (
        "coco",
        lambda f: edit(
            f / "annotations" / "instances_train.json", lambda c: c["annotations"][0].update(category_id=99)
        ),
        "annotation 0 has the category_id 99, which is missing from `categories`",
    ),
    "two categories of a name": (
        "coco",
        lambda f: edit(
            f / "annotations" / "instances_train.json", lambda c: c["categories"].append({"id": 7, "name": "sky"})
        ),
        "the category name 'sky' occurs twice",
    ),
    "an annotation without a mask": (
        "coco",
        lambda f: edit(
            f / "annotations" / "instances_train.json", lambda c: c["annotations"][0].update(segmentation=[])
        ),
        r"annotation 0 of a\.jpg \(sky\) cannot be read",
    ),
    "no COCO file": (
        "coco",
        lambda f: (f / "annotations" / "instances_val.json").write_text("[]"),
        "is not a COCO file of instances",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_the_place_and_the_remedy(tmp_path, fault):
    tool, damage, text = FAULTS[fault]
    for name in [tool] if tool else ["cvat", "label-studio", "coco"]:
        source = TOOLS[name](tmp_path / name)
        damage(source)
        assert re.search(text, convert(name, source, tmp_path / f"{name}-data", code=1)), (name, text)


def test_archives_and_missing_sources_are_named(tmp_path):
    (tmp_path / "a.zip").touch()
    assert "is an archive. Unpack it" in convert("cvat", tmp_path / "a.zip", tmp_path / "data", code=1)
    assert "There is no file or folder" in convert("coco", tmp_path / "b", tmp_path / "data", code=1)


def test_names_of_classes_may_have_colons(tmp_path):
    (tmp_path / "labelmap.txt").write_text("a:b: 1, 2 ,3:head:run\n")
    assert read_label_map(tmp_path / "labelmap.txt") == {(1, 2, 3): "a:b"}


def test_label_maps_are_never_taken_for_photos(tmp_path):
    source = write_cvat(tmp_path / "export")
    for path in (source / "JPEGImages").iterdir():
        path.unlink()
    (source / "JPEGImages").rmdir()
    assert "there is no photo a in" in convert("cvat", source, tmp_path / "data", code=1)
    for name in ("a", "b.2"):
        write_photo(tmp_path / "photos" / f"{name}.jpg")
    convert("cvat", source, tmp_path / "data", "--photos", tmp_path / "photos")
    assert len(label_maps(tmp_path / "data")) == 2
