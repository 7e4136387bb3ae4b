"""Test what `massformer segment` makes again, skips and keeps when it is run again."""

import io
import json
import os
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from support.commands import run

from transformers_massformer.cli.console import console, error_console, print_any_name
from transformers_massformer.inference.segmenter import Segmentation


class StandIn:
    """A segmenter whose label maps depend on the model's weights and the photo alone."""

    made = []

    def __init__(self, predictor, semantic_priors=False, mattes=False):
        self.predictor, self.mattes = predictor, mattes
        self.labels, self.device, self.dtype = ["others", "human", "sky"], "cpu", "torch.float32"

    def __call__(self, photo):
        StandIn.made.append(photo.size)
        label_map = np.full((photo.height, photo.width), 2, np.uint8)
        mattes = np.zeros((3, photo.height, photo.width), np.uint8) if self.mattes else None
        return Segmentation(label_map=label_map, seconds=0.0, peak_bytes=0, mattes=mattes)


@pytest.fixture
def segment(tmp_path, monkeypatch):
    """Return a function that segments two photos and returns the number it made, and the output."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_text("weights")
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for index, name in enumerate(("a.png", "sub/b.png")):
        PIL.Image.new("RGB", (20 + index, 16), (index, 0, 0)).save(tmp_path / "photos" / name)
    module = "transformers_massformer.cli.local"
    predictor = SimpleNamespace(num_semantic_labels=None)
    monkeypatch.setattr(f"{module}.load_predictor", lambda *arguments: predictor)
    monkeypatch.setattr(f"{module}.check_extras", lambda extras, labels: None)
    monkeypatch.setattr("transformers_massformer.inference.segmenter.Segmenter", StandIn)

    def call(*options, model=model, output=tmp_path / "out", code=0):
        StandIn.made.clear()
        result = run("segment", tmp_path / "photos", "--model", model, "--output", output, *options, code=code)
        return len(StandIn.made), " ".join(result.output.split())

    return call


def reencode(path):
    PIL.Image.open(path).save(path, compress_level=1)


def copy_model(tmp_path, **changed):
    folder = tmp_path / "model2"
    shutil.copytree(tmp_path / "model", folder, copy_function=shutil.copyfile)
    for name, text in changed.items():
        (folder / name.replace("__", ".")).write_text(text)
    return {"model": folder}


# What happens between the runs, the options of the second run, how many of two photos it makes, and what it says.
AGAIN = {
    "nothing": (None, [], 0, "2 of 2 are finished already"),
    "another device": (None, ["--device", "cuda:7"], 0, "2 of 2 are finished already"),
    "touched": (lambda p: os.utime(p / "photos/a.png", (1, 1)), [], 0, "2 of 2 are finished already"),
    "copied model": (copy_model, [], 0, "2 of 2 are finished already"),
    "card of the model": (lambda p: copy_model(p, README__md="new"), [], 0, "2 of 2 are finished already"),
    "weights": (lambda p: copy_model(p, model__safetensors="other"), [], 2, "2 again: another model."),
    "config": (lambda p: copy_model(p, config__json='{"a": 1}'), [], 2, "2 again: another model."),
    "processor": (lambda p: copy_model(p, preprocessor_config__json="{}"), [], 2, "2 again: another model."),
    "photo": (lambda p: reencode(p / "photos/a.png"), [], 1, "1 of 2 are finished already, 1 again: another photo;"),
    "deleted": (lambda p: (p / "out/a.png").unlink(), [], 1, "1 of 2 are finished already, 1 again: without a.png;"),
    "tile": (None, ["--tile", "64"], 2, "2 again: another tile."),
    "scales": (None, ["--scales", "1,0.5"], 2, "2 again: another scales."),
    "type": (None, ["--dtype", "bfloat16"], 2, "2 again: another dtype."),
    "format": (None, ["--format", "coco-rle"], 2, "Segmenting 2"),
    "an overlay too": (None, ["--overlay"], 2, "Segmenting 2"),
}


@pytest.mark.parametrize("change", AGAIN)
def test_what_has_changed_is_made_again(segment, tmp_path, change):
    do, options, expected, words = AGAIN[change]
    assert segment()[0] == 2
    model = {} if do is None else do(tmp_path)
    made, output = segment(*options, **(model if isinstance(model, dict) else {}))
    assert made == expected
    assert words in output
    # And then it is finished.
    assert segment(*options, **(model if isinstance(model, dict) else {}))[0] == 0


def test_the_order_of_options_does_not_matter(segment):
    assert segment("--scales", "1,0.5", "--overlay", "--bokeh", "sky", "--bokeh", "human")[0] == 2
    assert segment("--bokeh", "human", "--bokeh", "sky", "--overlay", "--scales", "0.5,1")[0] == 0
    # Options of pictures that are not asked for do not matter either.
    assert segment("--scales", "0.5,1")[0] == 0
    assert segment("--scales", "0.5,1", "--bokeh", "sky")[0] == 2


def test_a_folder_of_results_may_be_moved(segment, tmp_path):
    assert segment()[0] == 2
    shutil.copytree(tmp_path / "out", tmp_path / "moved", copy_function=shutil.copyfile)
    assert segment(output=tmp_path / "moved")[0] == 0


def test_results_that_were_changed_are_kept(segment, tmp_path):
    segment()
    PIL.Image.new("L", (20, 16), 1).save(tmp_path / "out" / "a.png")
    edited = (tmp_path / "out" / "a.png").read_bytes()
    made, output = segment()
    assert made == 0
    assert "a.png was changed after it was written. --overwrite makes it again" in output
    other = copy_model(tmp_path, model__safetensors="other")
    made, output = segment(**other, code=1)
    assert made == 1
    assert "would now be made from another model" in output
    assert "1 segmented, 0 failed, 1 kept" in output
    assert (tmp_path / "out" / "a.png").read_bytes() == edited
    # With the overlay, the label map would be written again, too.
    assert segment("--overlay", **other, code=1)[0] == 1
    assert segment(**other, code=1)[0] == 0
    assert segment("--overwrite", **other)[0] == 2
    assert segment(**other)[0] == 0


def test_files_of_others_are_kept(segment, tmp_path):
    (tmp_path / "out").mkdir()
    PIL.Image.new("L", (20, 16), 1).save(tmp_path / "out" / "a.png")
    drawn = (tmp_path / "out" / "a.png").read_bytes()
    made, output = segment(code=1)
    assert made == 1
    assert "a.png exists already, and there is no record of what it was made from. --overwrite replaces it" in output
    assert (tmp_path / "out" / "a.png").read_bytes() == drawn
    assert segment("--overwrite")[0] == 2


def test_pictures_of_earlier_runs_are_named_when_they_are_outdated(segment, tmp_path):
    segment("--overlay")
    other = copy_model(tmp_path, model__safetensors="other")
    made, output = segment(**other)
    assert made == 2
    assert output.count("not renewed: a_overlay.png, made otherwise by an earlier run") == 1
    assert "not renewed" not in segment("--overlay", **other)[1]


def test_a_photo_without_the_class_in_focus_is_named(segment):
    _, output = segment("--bokeh", "human")
    assert output.count("no human in it, a_bokeh.png is blurred everywhere") == 1
    assert "blurred everywhere" not in segment("--bokeh", "human", "--bokeh", "sky")[1]


@pytest.mark.parametrize("name", ["b \u0444.png", "\udce4.png", "n\nl.png", "a" * 240 + ".png", "-x.png", "[red].png"])
def test_names_that_a_terminal_cannot_show(segment, tmp_path, name, monkeypatch):
    PIL.Image.new("RGB", (20, 16)).save(tmp_path / "new.png")
    (tmp_path / "new.png").rename(tmp_path / "photos" / name)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert segment("--format", "coco-rle")[0] == 3
    assert segment("--format", "coco-rle")[0] == 0
    (image,) = json.loads((tmp_path / "out" / name).with_suffix(".json").read_text())["images"]
    assert image["file_name"] == name


def test_commands_print_any_name(monkeypatch):
    for encoding in ("cp1252", "ascii", "utf-8"):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        print_any_name()
        console.print("b \u0444 \udce4.jpg", markup=False)
        error_console.print("b \u0444 \udce4.jpg", markup=False)
        for stream in streams:
            stream.flush()
            assert b"\\udce4.jpg" in stream.buffer.getvalue()


def test_results_have_the_names_of_the_models_classes(segment, tmp_path, monkeypatch):
    segment()
    names = tmp_path / "out" / "classes.txt"
    assert names.read_text().split() == ["others", "human", "sky"]

    class Turned(StandIn):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.labels = self.labels[::-1]

    monkeypatch.setattr("transformers_massformer.inference.segmenter.Segmenter", Turned)
    (tmp_path / "photos" / "sub" / "b.png").rename(tmp_path / "b.png")
    turned = copy_model(tmp_path, model__safetensors="others")
    # The label map of b.png stays, and the file would say other classes of it.
    assert "Choose another --output" in segment(**turned, code=1)[1]
    assert names.read_text().split() == ["others", "human", "sky"]
    (tmp_path / "b.png").rename(tmp_path / "photos" / "sub" / "b.png")
    assert segment("--overlay", **turned)[0] == 2
    assert names.read_text().split() == ["sky", "human", "others"]
    monkeypatch.setattr("transformers_massformer.inference.segmenter.Segmenter", StandIn)
    # Pictures beside the label maps may stay.
    assert segment()[0] == 2


def test_label_maps_of_mass13ks_classes_are_named(segment, tmp_path, monkeypatch):
    from transformers_massformer.data.label_map_folder import LabelMapFolder
    from transformers_massformer.data.layout import LABELS

    class MaSS13K(StandIn):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.labels = list(LABELS)

    monkeypatch.setattr("transformers_massformer.inference.segmenter.Segmenter", MaSS13K)
    segment()
    assert LabelMapFolder(tmp_path / "out").class_names() == list(LABELS)
