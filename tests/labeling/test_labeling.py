"""Test pseudo-labels: detection, masks, merging and review."""

import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import run, run_python
from support.processes import run_command
from support.tiny_labelers import (
    DarkMasks,
    DarkThings,
    save_grounding_dino,
    save_owlv2,
    save_sam,
    save_sam2,
    save_sam_hq,
)

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.data.class_names import read_class_names
from transformers_massformer.data.layout import Pair, find_splits
from transformers_massformer.data.pseudo_labels import PseudoLabelFiles
from transformers_massformer.data.reading import read_label
from transformers_massformer.labeling import (
    Detections,
    Instance,
    Labeler,
    LabelOptions,
    SamSegmenter,
    ZeroShotDetector,
    combined_label_map,
    decode_mask,
    encode_mask,
    pseudo_label_map,
)
from transformers_massformer.labeling.detection import detect
from transformers_massformer.labeling.job import LabelJob, Photo
from transformers_massformer.labeling.review import read_review_list
from transformers_massformer.utils.resuming import RecordWriter


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "detector": save_grounding_dino(folder / "detector"),
        "segmenter": save_sam_hq(folder / "segmenter"),
    }


def photo_with_spots(size: tuple[int, int], spots: list[tuple[int, int, int, int]]) -> PIL.Image.Image:
    """Draw dark boxes on a light background."""
    photo = PIL.Image.new("RGB", size, (200, 200, 200))
    draw = PIL.ImageDraw.Draw(photo)
    for left, top, right, bottom in spots:
        draw.rectangle((left, top, right - 1, bottom - 1), fill=(10, 10, 10))
    return photo


def write_photo(
    folder: Path, name: str, photo: PIL.Image.Image, label_map: np.ndarray, split: str = "train", **options
):
    for kind in ("images", "annotations"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    photo.save(folder / "images" / split / f"{name}.png", **options)
    PIL.Image.fromarray(label_map).save(folder / "annotations" / split / f"{name}.png")


SPOTS = {"a": [(10, 10, 30, 30), (60, 20, 66, 24)], "b": [], "c": [(5, 40, 25, 60)]}


@pytest.fixture
def data(tmp_path) -> Path:
    """Write three photos; the lower half of each is ground, the upper half is others."""
    label_map = np.zeros((80, 96), np.uint8)
    label_map[40:] = 4
    label_map[:, :2] = 255
    for name, spots in SPOTS.items():
        write_photo(tmp_path / "data", name, photo_with_spots((96, 80), spots), label_map)
    return tmp_path / "data"


def label_job(data: Path, output: Path, relabel_all: bool = False) -> LabelJob:
    photos = [Photo("train", pair) for pair in find_splits(data)["train"].pairs]
    return LabelJob(output, photos, {7: "car"}, [*MASS13K_LABELS, "car"], relabel_all)


def label_with_stand_ins(job: LabelJob, options: LabelOptions | None = None):
    job.begin({"test": 1}, overwrite=False)
    labeler = Labeler(DarkThings(), DarkMasks(), options)
    with RecordWriter(job.output, 0) as writer:
        outcomes = [outcome for _, outcome in job.label(labeler, {7: "car"}, job.photos, writer)]
    return outcomes


def read_map(path: Path) -> np.ndarray:
    return read_label(path, str(path))[0].numpy()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**16), st.floats(0, 1))
def test_masks_survive_encoding(height, width, seed, density):
    mask = np.random.default_rng(seed).random((height, width)) < density
    encoded = json.loads(json.dumps(encode_mask(mask)))
    assert np.array_equal(decode_mask(encoded), mask)
    instance = Instance(7, (0.0, 0.0, 1.0, 1.0), 0.5, 0.5, encoded)
    assert instance.area == mask.sum()
    assert instance.share == pytest.approx(mask.mean())
    assert Instance.from_coco(json.loads(json.dumps(instance.to_coco()))) == instance


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.integers(0, 5), st.booleans())
def test_label_maps_equal_a_loop_over_pixels(seed, count, relabel_all):
    rng = np.random.default_rng(seed)
    instances = []
    for _ in range(count):
        mask, score, accepted = rng.random((6, 7)) < 0.4, float(rng.random()), bool(rng.random() < 0.8)
        instances.append(Instance(int(rng.integers(7, 9)), (0, 0, 1, 1), score, 1.0, encode_mask(mask), accepted))
    label_map = rng.choice([0, 1, 255], (6, 7)).astype(np.uint8)
    pseudo_labels = pseudo_label_map(instances, (6, 7))
    combined = combined_label_map(label_map, pseudo_labels, 255, relabel_all)
    for y in range(6):
        for x in range(7):
            here = [each for each in instances if each.accepted and decode_mask(each.mask)[y, x]]
            expected = max(here, key=lambda each: each.score).class_id if here else 0
            assert pseudo_labels[y, x] == expected
            free = label_map[y, x] == 0 or (relabel_all and label_map[y, x] != 255)
            assert combined[y, x] == (expected if expected and free else label_map[y, x])


def test_windows_find_objects_too_small_in_the_complete_photo():
    class OnlyLargeThings(DarkThings):
        """Detector of dark spots that cover at least a hundredth of the image."""

        def __call__(self, images, prompt):
            found = []
            for image, detections in zip(images, super().__call__(images, prompt), strict=True):
                boxes = detections.boxes
                areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
                found.append(detections.keep(areas >= image.width * image.height / 100))
            return found

    spots = [(20, 20, 120, 100), (250, 150, 262, 160), (124, 70, 136, 80), (390, 290, 400, 300)]
    photo = photo_with_spots((400, 300), spots)
    (whole,) = detect(OnlyLargeThings(), [photo], "car")
    assert whole.boxes.tolist() == [list(spots[0])]
    for batch_size in (1, 3):
        (found,) = detect(OnlyLargeThings(), [photo], "car", tile=100, overlap=40, batch_size=batch_size)
        assert sorted(found.boxes.tolist()) == sorted(map(list, spots))


def test_the_best_of_overlapping_boxes_is_kept():
    class Twice:
        def __call__(self, images, prompt):
            boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
            return [Detections(boxes, torch.tensor([0.5, 0.9, 0.4])) for _ in images]

    (found,) = detect(Twice(), [PIL.Image.new("RGB", (40, 40))], "car")
    assert found.boxes.tolist() == [[0, 0, 10, 9], [20, 20, 30, 30]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.4])


def test_by_default_a_new_class_replaces_only_others(data, tmp_path):
    job = label_job(data, tmp_path / "out")
    assert label_with_stand_ins(job) == [2, 0, 1]
    for name, spots in SPOTS.items():
        alone, label_map = np.zeros((80, 96), np.uint8), read_map(data / "annotations" / "train" / f"{name}.png")
        for left, top, right, bottom in spots:
            alone[top:bottom, left:right] = 7
        assert np.array_equal(read_map(job.files.alone("train", name)), alone)
        combined = read_map(job.files.combined("train", name))
        assert np.array_equal(combined, np.where((label_map == 0) & (alone == 7), 7, label_map))
    everywhere = label_job(data, tmp_path / "everywhere", relabel_all=True)
    label_with_stand_ins(everywhere)
    combined = read_map(everywhere.files.combined("train", "c"))
    assert (combined[40:60, 5:25] == 7).all()
    assert (combined[:, :2] == 255).all()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [2, 0, 1]),
        ({"min_area": 0.01}, [1, 0, 1]),
        ({"max_area": 0.01}, [1, 0, 0]),
        ({"mask_score": 0.95}, [0, 0, 0]),
        ({"presence_score": 1.0}, [2, 0, 1]),
    ],
)
def test_filters(data, tmp_path, options, kept):
    job = label_job(data, tmp_path / "out")
    assert label_with_stand_ins(job, LabelOptions(**options)) == [2, 0, 1]
    records = job.done()
    accepted = [sum(each.accepted for each in records[photo.key].instances) for photo in job.photos]
    assert accepted == kept
    assert all(each.accepted or each.reason for record in records.values() for each in record.instances)


def test_a_class_without_a_certain_object_counts_as_absent():
    class Unsure(DarkThings):
        def __call__(self, images, prompt):
            return [Detections(found.boxes, found.scores * 0.4) for found in super().__call__(images, prompt)]

    photo = photo_with_spots((96, 80), SPOTS["a"])
    (instances,) = Labeler(Unsure(), DarkMasks(), LabelOptions(presence_score=0.5))([photo], {7: "car"})
    assert [each.reason for each in instances] == ["class absent: best score below 0.5"] * 2
    (instances,) = Labeler(Unsure(), DarkMasks(), LabelOptions(presence_score=0.3))([photo], {7: "car"})
    assert all(each.accepted for each in instances)


@pytest.mark.parametrize(
    "options", [{"tile": 100, "overlap": 100}, {"tile": 100, "overlap": -1}, {"batch_size": 0}, {"min_area": 1.5}]
)
def test_options_out_of_range_raise(options):
    with pytest.raises(ValueError, match="must be"):
        LabelOptions(**options)


def test_two_classes_at_once():
    photo = photo_with_spots((96, 80), SPOTS["a"])
    (instances,) = Labeler(DarkThings(), DarkMasks())([photo], {7: "car", 8: "bicycle"})
    assert [each.class_id for each in instances] == [7, 7, 8, 8]


def test_review_decisions_are_applied(data, tmp_path):
    job = label_job(data, tmp_path / "out")
    label_with_stand_ins(job)
    reviewables = job.finish({}, sheets=2)
    assert len(reviewables) == 3
    with PIL.Image.open(tmp_path / "out" / "review" / "001.jpg") as sheet:
        assert sheet.width == 3 * 384
    path = tmp_path / "out" / "review.csv"
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    assert "a,0,car" in lines[1]
    before = read_map(job.files.combined("train", "a"))
    assert (before == 7).sum() == 20 * 20 + 6 * 4
    path.write_text("\n".join([lines[0], lines[1].replace("accept", "Reject")]))
    assert job.review(read_review_list(path)) == 1
    assert (read_map(job.files.combined("train", "a")) == 7).sum() == 6 * 4
    job.finish({}, sheets=0)
    found = json.loads(job.files.manifest.read_text())
    assert [each["accepted"] for each in found["annotations"]] == [False, True, True]
    assert found["annotations"][0]["reason"] == "review"
    assert not list((tmp_path / "out" / "review").glob("*.jpg"))
    # Decisions can be reverted, and decisions that change nothing write nothing.
    path.write_text("\n".join(lines))
    assert job.review(read_review_list(path)) == 1
    assert np.array_equal(read_map(job.files.combined("train", "a")), before)
    assert job.review(read_review_list(path)) == 0


@pytest.mark.parametrize("separator", [";", "\t"])
def test_review_lists_saved_by_a_spreadsheet_are_read(data, tmp_path, separator):
    job = label_job(data, tmp_path / "out")
    label_with_stand_ins(job)
    job.finish({}, sheets=0)
    path = tmp_path / "out" / "review.csv"
    decisions = read_review_list(path)
    saved = path.read_text().replace(",", separator).replace("\n", separator * 2 + "\r\n")
    path.write_bytes(saved.encode("utf-8-sig"))
    assert read_review_list(path) == decisions
    path.write_text(path.read_text(encoding="utf-8-sig") + saved.splitlines()[1].replace("accept", "reject"))
    with pytest.raises(ValueError, match="object 0 of a is both accepted and rejected"):
        read_review_list(path)


def test_only_results_of_the_present_files_are_finished(data, tmp_path):
    job = label_job(data, tmp_path / "out")
    label_with_stand_ins(job)
    keys = set(job.done())
    (tmp_path / "out" / job.files.alone("train", "a").relative_to(tmp_path / "out")).unlink()
    assert set(job.done()) == keys - {("train", "a")}
    with pytest.raises(ValueError, match=r"1 photos, such as a, have no result that fits.*Run the labelling again"):
        job.review({})
    photo = next(photo for photo in job.photos if photo.pair.image_id == "b")
    with PIL.Image.open(photo.pair.label) as label:
        size = label.size
    PIL.Image.new("L", size).save(photo.pair.label)
    assert set(job.done()) == keys - {("train", "a"), ("train", "b")}


def test_invalid_review_lists_raise(data, tmp_path):
    job = label_job(data, tmp_path / "out")
    label_with_stand_ins(job)
    job.finish({}, sheets=0)
    path = tmp_path / "out" / "review.csv"
    text = path.read_text()
    path.write_text(text.replace("accept", "perhaps", 1))
    with pytest.raises(
        ValueError, match=r"line 2: the decision on object '0' is 'perhaps'; it must be accept or reject"
    ):
        read_review_list(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="lacks the columns decision, image_id, instance, split"):
        read_review_list(path)
    with pytest.raises(FileNotFoundError, match="no review list"):
        read_review_list(tmp_path / "nothing.csv")
    with pytest.raises(ValueError, match="names object 9 of a in train, which does not exist"):
        job.review({("train", "a", 9): False})


def test_pycocotools_reads_the_manifest(data, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    job = label_job(data, tmp_path / "out")
    label_with_stand_ins(job)
    job.finish({"detector": "dark things"}, sheets=0)
    found = coco.COCO(str(job.files.manifest))
    assert [category["name"] for category in found.loadCats(found.getCatIds())] == ["car"]
    assert len(found.getImgIds()) == 3
    first = found.loadAnns(found.getAnnIds(imgIds=[1]))
    assert [each["bbox"] for each in first] == [[10, 10, 20, 20], [60, 20, 6, 4]]
    assert found.annToMask(first[1]).sum() == 24
    assert PseudoLabelFiles(tmp_path / "out").read_classes() == {7: "car"}


def test_photos_are_read_upright(tmp_path):
    label_map = np.zeros((80, 96), np.uint8)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    write_photo(tmp_path / "data", "a", photo_with_spots((96, 80), [(10, 20, 30, 50)]), label_map, exif=exif)
    job = label_job(tmp_path / "data", tmp_path / "out")
    assert label_with_stand_ins(job) == [1]
    # Rotated by 90 degrees clockwise.
    (instance,) = job.done()["train", "a"].instances
    assert instance.box == (30, 10, 60, 30)
    combined = read_map(job.files.combined("train", "a"))
    assert combined.shape == (96, 80)
    assert (combined[10:30, 30:60] == 7).all()
    (pair,) = job.files.pairs([photo.pair for photo in job.photos], "train")
    assert pair == Pair("a", job.photos[0].pair.image, job.files.combined("train", "a"))


# Models of transformers


SAVERS = {"sam": save_sam, "sam_hq": save_sam_hq, "sam2": save_sam2}


@pytest.mark.parametrize("kind", SAVERS)
def test_masks_do_not_depend_on_the_batch(kind, tmp_path):
    segmenter = SamSegmenter.load(SAVERS[kind](tmp_path / kind), "cpu", torch.float32, batch_size=64)
    torch.manual_seed(0)
    photo = PIL.Image.effect_noise((150, 100), 80).convert("RGB")
    corners = torch.rand(200, 2) * torch.tensor([100.0, 60.0])
    boxes = torch.cat((corners, corners + 5 + 30 * torch.rand(200, 2)), dim=1)
    together = list(segmenter(photo, boxes))
    assert len(together) == 200
    assert {mask.shape for mask, _ in together} == {(100, 150)}
    assert len({mask.tobytes() for mask, _ in together}) > 10
    segmenter.batch_size = 1
    for (mask, score), (expected, expected_score) in zip(together, segmenter(photo, boxes[:5]), strict=False):
        assert (mask != expected).mean() < 1e-3
        assert score == pytest.approx(expected_score, abs=1e-4)
    assert not list(segmenter(photo, boxes[:0]))


@pytest.mark.parametrize("save", [save_grounding_dino, save_owlv2])
def test_detections_do_not_depend_on_the_batch(save, tmp_path):
    detector = ZeroShotDetector.load(save(tmp_path / "detector"), "cpu", torch.float32, 0.0)
    torch.manual_seed(0)
    photos = [PIL.Image.effect_noise(size, 80).convert("RGB") for size in ((300, 200), (200, 260), (300, 200))]
    single = [detect(detector, [photo], "car")[0] for photo in photos]
    together = detect(detector, photos, "car", batch_size=3)
    for one, other, photo in zip(single, together, photos, strict=True):
        assert len(one)
        torch.testing.assert_close(one.boxes, other.boxes, atol=1e-2, rtol=1e-4)
        assert (one.boxes >= 0).all()
        assert (one.boxes <= torch.tensor([photo.width, photo.height] * 2)).all()


def test_models_of_another_task_raise(models):
    with pytest.raises(ValueError, match="Unrecognized configuration class|zero-shot"):
        ZeroShotDetector.load(models["segmenter"], "cpu", torch.float32)
    with pytest.raises(ValueError, match="Unrecognized configuration class"):
        SamSegmenter.load(models["detector"], "cpu", torch.float32)


def label_command(data: Path, output: Path, models: dict[str, Path], *options: str) -> list[str]:
    command = ["label", "--data", str(data), "--output", str(output), "--class", "car", "--device", "cpu"]
    return [*command, "--detector", str(models["detector"]), "--segmenter", str(models["segmenter"]), *options]


def run_label(data: Path, output: Path, models: dict[str, Path], *options: str, code: int = 0) -> str:
    return run(*label_command(data, output, models, *options), code=code).output


ALL = ("--score", "0.5", "--relabel", "all")


def test_the_command_labels_photos(data, tmp_path, models):
    output = tmp_path / "out"
    assert "car (class 7):" in run_label(data, output, models, *ALL)
    found = json.loads((output / "manifest.json").read_text())
    assert [image["image_id"] for image in found["images"]] == ["a", "b", "c"]
    assert found["annotations"]
    assert {each["score"] >= 0.5 for each in found["annotations"]} == {True}
    assert list((output / "review").glob("*.jpg"))
    # A second run finds everything done, and a run with other options is rejected.
    before = (output / "manifest.json").read_bytes()
    assert "3 of 3 photographs are in" in run_label(data, output, models, *ALL)
    assert (output / "manifest.json").read_bytes() == before
    refused = run_label(data, output, models, *ALL, "--score", "0.4", code=1)
    assert "another labeling run (different score)" in refused


@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_resumed_run_gives_the_same_manifest(data, tmp_path, models, killed_after):
    for name in ("whole", "halves"):
        run_label(data, tmp_path / name, models, *ALL, "--sheets", "0")
    # As if the run had been killed while writing a record.
    records = tmp_path / "halves" / "records" / "0.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:killed_after]) + lines[killed_after][:40])
    (tmp_path / "halves" / "manifest.json").unlink()
    run_label(data, tmp_path / "halves", models, *ALL, "--sheets", "0")
    whole, halves = ((tmp_path / name / "manifest.json").read_text() for name in ("whole", "halves"))
    assert whole == halves


def test_several_processes_give_the_same_manifest(data, tmp_path, models):
    options = [*ALL, "--sheets", "0"]
    run_label(data, tmp_path / "one", models, *options)
    run_command(label_command(data, tmp_path / "two", models, *options), tmp_path, processes=2)
    assert len(list((tmp_path / "two" / "records").glob("*.jsonl"))) == 2
    manifests = [(tmp_path / name / "manifest.json").read_text() for name in ("one", "two")]
    assert manifests[0] == manifests[1]


def test_a_second_class_is_added_to_the_first(data, tmp_path, models):
    run_label(data, tmp_path / "car", models, *ALL)
    first = read_map(PseudoLabelFiles(tmp_path / "car").combined("train", "a"))
    assert (first == 7).any()
    command = label_command(data, tmp_path / "both", models, *ALL, "--score", "0.3")
    command[command.index("car")] = "bicycle=a bicycle"
    run(*command, "--pseudo-labels", tmp_path / "car")
    files = PseudoLabelFiles(tmp_path / "both")
    assert files.read_classes() == {7: "car", 8: "bicycle"}
    assert set(np.unique(read_map(files.alone("train", "a")))) <= {0, 8}
    assert (read_map(files.combined("train", "a")) == 8).any()


def test_errors_name_the_remedy(data, tmp_path, models):
    output = tmp_path / "out"
    known = run("label", "--data", data, "--output", output, "--class", "sky", code=1)
    assert "The class 'sky' exists already" in known.output
    # A missing model leaves nothing behind that would block the next run.
    assert str(data / "nowhere") in run_label(data, output, {**models, "detector": data / "nowhere"}, code=1)
    assert not output.exists()
    nothing = run_label(data, tmp_path / "nothing", models, "--score", "1", code=1)
    assert "No car was found in 3 photographs. Lower --score" in nothing
    (tmp_path / "broken" / "images").mkdir(parents=True)
    broken = data / "images" / "train" / "b.png"
    os.truncate(broken, 200)
    printed = run_label(data, tmp_path / "broken", models, "--score", "0.5", code=1)
    assert str(broken) in printed
    assert "1 photographs failed" in printed
    assert not (tmp_path / "broken" / "manifest.json").exists()
    with pytest.raises(FileNotFoundError, match="labelling was interrupted"):
        PseudoLabelFiles(tmp_path / "broken").read_classes()


PEAK_MEMORY = """
import resource, sys
import PIL.Image, torch
from transformers_massformer.labeling import Detections, Labeler, SamSegmenter

def boxes(images, prompt):
    numbers = torch.arange(int(prompt))
    corners = torch.stack((numbers % 6, numbers // 6), 1) * 600.0
    return [Detections(torch.cat((corners, corners + 500), 1), torch.rand(len(numbers))) for _ in images]

torch.manual_seed(0)
labeler = Labeler(boxes, SamSegmenter.load(sys.argv[1], "cpu", torch.float32))
photo = PIL.Image.new("RGB", (4096, 3072), (90, 120, 60))
for count in sys.argv[2:]:
    (instances,) = labeler([photo], {7: count})
    print(len(instances), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_masks_at_4k_are_not_held_for_all_boxes(models):
    # In a separate process, whose peak memory starts low.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = run_python("-c", PEAK_MEMORY, models["segmenter"], "4", "24", env=environment)
    (few, few_bytes), (many, many_bytes) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (few, many) == (4, 24)
    # One mask of 4096 x 3072 has 12.6 MB; 20 more of them would have 250 MB.
    assert many_bytes - few_bytes < 8 * 4096 * 3072


def test_a_folder_of_other_classes_is_neither_resumed_nor_reviewed(data, tmp_path):
    job = label_job(data, tmp_path / "labels")
    label_with_stand_ins(job)
    job.finish({"known": list(MASS13K_LABELS), "classes": {"car": "car"}, "relabel": "others"}, sheets=0)
    assert read_class_names(tmp_path / "labels") == [*MASS13K_LABELS, "car"]
    review = ("--output", tmp_path / "labels", "--review", tmp_path / "labels" / "review.csv")
    run("label", "--data", data, "--class", "Car", *review)
    for options, words in (
        (("--class", "truck"), "labelled with --class car on data with 0 others"),
        (("--class", "car", "--class", "truck"), "Give the same --class"),
        (("--class", "car", "--relabel", "all"), "labelled with --relabel others"),
        (("--class", "SKY"), "'SKY' exists already"),
        (("--class", "car", "--class", "Car"), "given twice"),
        (("--class", "a/b", "--class", "a:b"), "would both be written"),
    ):
        result = run("label", "--data", data, *options, *review, code=1)
        assert words in " ".join(result.output.split()), options
    path = tmp_path / "labels" / "review.csv"
    path.write_text(path.read_text().replace(",Car,", ",bus,"))
    result = run("label", "--data", data, "--class", "car", *review, code=1)
    assert "in train 'bus', but it is a 'car'" in " ".join(result.output.split())


def test_others_is_found_by_its_name(data, tmp_path):
    names = ["ground", "sky", "Others"]
    for path in data.rglob("annotations/*/*.png"):
        values = read_map(path)
        PIL.Image.fromarray(np.select([values == 4, values == 0], [0, 2], 255).astype(np.uint8)).save(path)
    photos = [Photo("train", pair) for pair in find_splits(data)["train"].pairs]
    job = LabelJob(tmp_path / "labels", photos, {3: "car"}, [*names, "car"], relabel_all=False)
    job.begin({"test": 1}, overwrite=False)
    with RecordWriter(job.output, 0) as writer:
        list(job.label(Labeler(DarkThings(), DarkMasks()), {3: "car"}, job.photos, writer))
    alone, combined = read_map(job.files.alone("train", "a")), read_map(job.files.combined("train", "a"))
    assert set(np.unique(alone)) == {2, 3}
    before = read_map(photos[0].pair.label)
    assert (combined[(alone == 3) & (before == 2)] == 3).all()
    assert (combined[before != 2] == before[before != 2]).all()
    with pytest.raises(ValueError, match="no class 'others'.*--relabel all"):
        LabelJob(tmp_path / "labels", photos, {2: "car"}, ["ground", "sky", "car"], relabel_all=False)
