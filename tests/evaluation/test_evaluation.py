import csv
import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from support.commands import run, run_until
from support.processes import run_command
from support.replica import write_pair
from support.tiny_data import photo

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.data.label_map_folder import LabelMapFolder
from transformers_massformer.inference.predictor import ModelPredictor, PredictionOptions
from transformers_massformer.metrics import CountSettings, count_images, score
from transformers_massformer.models.semantic_readout import read_general_map


SIZES = {"a": (96, 80), "b": (80, 96), "c": (131, 67)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write three photos of different sizes, one of them stored rotated."""
    root = tmp_path_factory.mktemp("data")
    labels = {
        name: write_pair(root, "val", name, size, orientation=6 if name == "b" else 1, seed=index)
        for index, (name, size) in enumerate(SIZES.items())
    }
    return root, labels


ON_CPU = ("--split", "val", "--device", "cpu", "--profile-size", "0", "--worst", "1")


def evaluate(model, data, output, *more, code=0):
    """Run `massformer evaluate` on the CPU, without a profile."""
    return run("evaluate", "--model", model, "--data", data, "--output", output, *ON_CPU, *more, code=code)


def scores_in(output):
    return json.loads((output / "results.json").read_text())["scores"]


def expected_scores(predictor, data):
    root, labels = data
    predictions = []
    for name in labels:
        with PIL.Image.open(root / "images_pad" / "val" / f"{name}.jpg") as image:
            predictions.append(predictor(PIL.ImageOps.exif_transpose(image)))
    return score(count_images(predictions, [torch.from_numpy(x) for x in labels.values()], 7), CountSettings())


@pytest.mark.parametrize("name", ["massformer", "mask2former", "segformer"])
def test_evaluate_writes_the_scores_and_tables(peers, data, tmp_path, name):
    root, labels = data
    evaluate(peers(name), root, tmp_path / "out", "--title", "A_model")
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    expected = expected_scores(ModelPredictor.load(peers(name), "cpu"), data)
    assert json.dumps(written["scores"]) == json.dumps(expected)
    assert list(written["images"]) == list(labels)
    table = (tmp_path / "out" / "classes.md").read_text()
    assert table.splitlines()[0].startswith("| Method | Mean mIoU | Mean BIoU | Mean BF1 | Others IoU | Others BIoU")
    assert f"{100 * expected['mean_boundary_iou']:.2f}" in table
    assert f"{expected['mean_bf1']:.4f}" in table
    assert "A\\_model & " in (tmp_path / "out" / "classes.tex").read_text()
    with (tmp_path / "out" / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["image_id"], int(row["width"]), int(row["height"])) for row in rows] == [
        (name, *size) for name, size in SIZES.items()
    ]
    (panel,) = (tmp_path / "out" / "worst").glob("*.jpg")
    worst = min(rows, key=lambda row: float(row["mean_boundary_iou"]))
    assert panel.name == f"01_{worst['image_id']}.jpg"


@pytest.mark.parametrize("name", ["massformer", "mask2former"])
def test_evaluate_by_general_inference(peers, data, tmp_path, name):
    root, labels = data
    evaluate(peers(name), root, tmp_path / "out", "--inference", "general")
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["prediction"]["inference"] == "general"
    predictor = ModelPredictor.load(peers(name), "cpu", options=PredictionOptions(inference="general"))
    image = photo(*SIZES["a"])
    inputs, valid_size = predictor.prepare(image)
    with torch.no_grad():
        outputs = predictor.run(inputs)
    classes, masks = outputs.class_queries_logits[0], outputs.masks_queries_logits[0]
    strides = tuple(np.divide(inputs["pixel_values"].shape[-2:], masks.shape[-2:]).tolist())
    expected = read_general_map(classes, masks, (80, 96), valid_size, strides)
    assert torch.equal(predictor(image), expected)


def test_logits_per_pixel_have_no_general_inference(peers, data, tmp_path):
    result = evaluate(peers("segformer"), data[0], tmp_path / "out", "--inference", "general", code=1)
    assert "has no queries" in result.output


def test_evaluate_a_folder_of_label_maps(data, tmp_path):
    root, labels = data
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for name, label_map in labels.items():
        PIL.Image.fromarray(np.where(label_map == 255, 0, label_map)).save(predictions / f"{name}.png")
    evaluate(predictions, root, tmp_path / "out")
    assert scores_in(tmp_path / "out")["per_category_iou"] == [1] * 7
    # Class ids of another model.
    for name, label_map in labels.items():
        PIL.Image.fromarray(np.where(label_map == 255, 0, label_map + 100)).save(predictions / f"{name}.png")
    refused = evaluate(predictions, root, tmp_path / "other", code=1)
    assert "a.png contains values outside the 7 classes: 100," in refused.output
    mapping = tmp_path / "map.json"
    mapping.write_text(json.dumps({"*": 0, **{str(100 + index): label for index, label in enumerate(MASS13K_LABELS)}}))
    evaluate(predictions, root, tmp_path / "other", "--label-map", mapping, "--overwrite")
    assert scores_in(tmp_path / "other")["mean_iou"] == 1


def test_evaluate_with_an_additional_class(data, tmp_path):
    labels, root = data[1], tmp_path / "data"
    shutil.copytree(data[0], root)
    for name, label_map in labels.items():
        with_car = np.where(label_map == 0, 7, label_map)
        PIL.Image.fromarray(with_car).save(root / "annotations" / "val" / f"{name}.png")
        (tmp_path / "predictions").mkdir(exist_ok=True)
        PIL.Image.fromarray(np.where(with_car == 255, 7, with_car)).save(tmp_path / "predictions" / f"{name}.png")
    evaluate(tmp_path / "predictions", root, tmp_path / "out", code=1)
    evaluate(tmp_path / "predictions", root, tmp_path / "out", "--add-class", "car", "--overwrite")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["labels"][7] == "car"
    assert results["scores"]["per_category_iou"][7] == 1


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("predictions/a.png", PIL.Image.new("L", (80, 80)).save, r"a.png has 80 x 80 pixels, its photograph 96 x 80"),
        ("predictions/a.png", PIL.Image.new("L", (96, 80), 9).save, r"a.png contains values outside the 7 classes: 9"),
        ("predictions/c.png", Path.unlink, r"There is no prediction .*c.png"),
        ("data/annotations/val/b.png", Path.unlink, r"image without a label: .*b.jpg"),
        ("predictions/b.png", lambda path: os.truncate(path, 60), r"b.png is damaged or truncated"),
    ],
)
def test_faults_name_the_file(tmp_path, file, damage, words):
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for name, size in SIZES.items():
        write_pair(tmp_path / "data", "val", name, size)
        PIL.Image.new("L", size).save(predictions / f"{name}.png")
    damage(tmp_path / file)
    result = evaluate(predictions, tmp_path / "data", tmp_path / "out", code=1)
    assert re.search(words, result.output), result.output


def test_an_evaluation_resumes_where_it_stopped(peers, data, tmp_path):
    root, _ = data
    evaluate(peers("segformer"), root, tmp_path / "whole")
    whole = (tmp_path / "whole" / "results.json").read_bytes()
    evaluate(peers("segformer"), root, tmp_path / "cut")
    records = tmp_path / "cut" / "records" / "0.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    # As if killed while writing the second record.
    records.write_text(lines[0] + lines[1][:40])
    (tmp_path / "cut" / "results.json").unlink()
    result = evaluate(peers("segformer"), root, tmp_path / "cut")
    assert "1 of 3 images are in" in result.output
    assert (tmp_path / "cut" / "results.json").read_bytes() == whole
    assert "3 of 3 images are in" in evaluate(peers("segformer"), root, tmp_path / "cut").output


def test_another_evaluation_is_not_mixed_in(peers, data, tmp_path):
    root, _ = data
    evaluate(peers("segformer"), root, tmp_path)
    refused = evaluate(peers("segformer"), root, tmp_path, "--bf1-tolerance", "3", code=1)
    assert "another evaluation (different counting)" in refused.output
    evaluate(peers("segformer"), root, tmp_path, "--bf1-tolerance", "3", "--overwrite")
    assert scores_in(tmp_path)["settings"]["bf1_tolerance"] == 3


def test_two_processes_give_the_same_results(peers, data, tmp_path):
    root, _ = data
    evaluate(peers("massformer"), root, tmp_path / "one")
    options = ["--model", str(peers("massformer")), "--data", str(root), "--output", str(tmp_path / "two"), *ON_CPU]
    run_command(["evaluate", *options], tmp_path)
    assert len(list((tmp_path / "two" / "records").glob("*.jsonl"))) == 2
    assert (tmp_path / "two" / "results.json").read_bytes() == (tmp_path / "one" / "results.json").read_bytes()


def test_a_killed_evaluation_gives_the_same_results(peers, data, tmp_path):
    root, _ = data
    records = tmp_path / "killed" / "records" / "0.jsonl"
    command = ("evaluate", "--model", peers("massformer"), "--data", root, "--output", tmp_path / "killed", *ON_CPU)
    run_until(lambda: records.exists() and "\n" in records.read_text(), signal.SIGKILL, *command)
    assert records.read_text().count("\n") >= 1
    for name in ("killed", "whole"):
        evaluate(peers("massformer"), root, tmp_path / name)
    results = [(tmp_path / name / "results.json").read_bytes() for name in ("killed", "whole")]
    assert results[0] == results[1]


def test_costs(peers, tmp_path):
    profile = ("--profile-only", "--profile-size", "160x96", "--device", "cpu")
    run("evaluate", "--model", peers("massformer"), "--output", tmp_path, *profile)
    costs = json.loads((tmp_path / "profile.json").read_text())
    assert costs["input_size"] == [96, 160]
    assert costs["parameters"] == ModelPredictor.load(peers("massformer"), "cpu").model.num_parameters()
    assert "two per multiply-add" in (tmp_path / "profile.md").read_text()
    assert costs["flops"] > 1e6


def test_compare_on_the_command_line(data, peers, tmp_path):
    root, _ = data
    for name in ("segformer", "upernet"):
        evaluate(peers(name), root, tmp_path / name)
    results = tmp_path / "segformer" / "results.json", tmp_path / "upernet"
    run("compare", *results, "--samples", "50", "--output", tmp_path / "table.md")
    table = (tmp_path / "table.md").read_text()
    assert [line.split(" | ")[:2] for line in table.splitlines()[2:4]] == [
        ["| mIoU", "segformer"],
        ["| mIoU", "upernet"],
    ]
    assert len(table.splitlines()) == 2 + 3 * 2
    assert "no file" in run("compare", tmp_path / "nowhere.json", code=1).output


def test_an_empty_folder_is_neither_model_nor_predictions(tmp_path):
    with pytest.raises(FileNotFoundError, match="no label maps"):
        LabelMapFolder(tmp_path)


def test_names_decide_and_not_ids(peers, data, tmp_path):
    order = [5, 2, 0, 6, 1, 3, 4]
    names = [MASS13K_LABELS[index] for index in order]
    shutil.copytree(data[0], tmp_path / "turned")
    table = np.full(256, 255, np.uint8)
    table[order] = np.arange(7)
    for path in (tmp_path / "turned").rglob("annotations/*/*.png"):
        with PIL.Image.open(path) as image:
            exif, values = image.getexif(), np.array(image)
        PIL.Image.fromarray(table[values]).save(path, exif=exif)
    shutil.copytree(peers("segformer"), tmp_path / "model")
    evaluate(tmp_path / "model", data[0], tmp_path / "one")
    options = [option for name in names for option in ("--labels", name.upper())]
    evaluate(tmp_path / "model", tmp_path / "turned", tmp_path / "two", *options)
    (tmp_path / "turned" / "classes.txt").write_text("\n".join(names))
    evaluate(tmp_path / "model", tmp_path / "turned", tmp_path / "three")
    first = scores_in(tmp_path / "one")
    for output in ("two", "three"):
        found = scores_in(tmp_path / output)
        assert found["mean_boundary_iou"] == pytest.approx(first["mean_boundary_iou"])
        assert found["per_category_iou"] == pytest.approx([first["per_category_iou"][index] for index in order])
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    for id2label, words in (
        ({index: f"LABEL_{index}" for index in range(7)}, "have no names"),
        ({**dict(enumerate(MASS13K_LABELS)), 6: "river"}, "The names of the classes differ"),
    ):
        (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "id2label": id2label}))
        result = evaluate(tmp_path / "model", data[0], tmp_path / "four", code=1)
        assert words in " ".join(result.output.split())


def test_label_maps_with_names_are_matched_by_them(data, tmp_path):
    root, labels = data
    (tmp_path / "maps").mkdir()
    for name, label_map in labels.items():
        PIL.Image.fromarray(np.where(label_map == 255, 255, 6 - label_map).astype(np.uint8)).save(
            tmp_path / "maps" / f"{name}.png"
        )
    (tmp_path / "maps" / "classes.txt").write_text("\n".join(reversed(MASS13K_LABELS)))
    evaluate(tmp_path / "maps", root, tmp_path / "out", "--inference", "general")
    assert scores_in(tmp_path / "out")["mean_iou"] == 1
