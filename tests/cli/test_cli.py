import signal

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from support.commands import run, run_python, run_until
from support.golden import golden_state_dict, semask_golden_state_dict
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.data.annotations import read_coco_annotation
from transformers_massformer.data.label_headers import read_annotation
from transformers_massformer.data.reading import read_label
from transformers_massformer.editing import class_palette, firm_matte, overlay_image


@pytest.fixture
def model_folder(peers):
    return peers("massformer")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (40, 50)), ("sub/b.png", (33, 70)), ("sub/c.JPEG", (1, 5))):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("not a photograph")
    return tmp_path / "photos"


def segment(model_folder, *arguments, code=0):
    return run("segment", "--model", model_folder, "--device", "cpu", *arguments, code=code)


def written(folder):
    """Return the results in a folder, without the hidden records of what they were made from."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != ".massformer")


def test_a_folder_of_photographs(model_folder, photos, tmp_path):
    result = segment(model_folder, photos, "--output", tmp_path / "out", "--overlay")
    pictures = [f"{name}{suffix}.png" for name in ("a", "sub/b", "sub/c") for suffix in ("", "_overlay")]
    assert written(tmp_path / "out") == sorted(["classes.txt", *pictures])
    label_map = PIL.Image.open(tmp_path / "out" / "sub" / "b.png")
    assert (label_map.mode, label_map.size) == ("P", (70, 33))
    assert np.asarray(label_map).max() <= 6
    assert label_map.getpalette()[:21] == class_palette(7).flatten().tolist()
    overlay = PIL.Image.open(tmp_path / "out" / "sub" / "b_overlay.png")
    photo = PIL.Image.open(photos / "sub" / "b.png")
    expected = overlay_image(photo, np.asarray(label_map), 7)
    assert np.array_equal(np.asarray(overlay)[:33], np.asarray(expected))
    assert result.output.count(", cpu, float32, ") == 3
    assert "50 x 40" in result.output
    assert "peak memory" in result.output
    assert "3 segmented, 0 failed" in result.output


def test_finished_photographs_are_skipped(model_folder, photos, tmp_path):
    output = tmp_path / "out"
    segment(model_folder, photos / "a.jpg", "--output", output)
    first = (output / "a.png").stat().st_mtime_ns
    result = segment(model_folder, photos, "--output", output)
    assert "1 of 3 are finished already" in result.output
    assert (output / "a.png").stat().st_mtime_ns == first
    segment(model_folder, photos, "--output", output)
    segment(model_folder, photos / "a.jpg", "--output", output, "--overwrite")
    assert (output / "a.png").stat().st_mtime_ns > first
    # A photograph whose overlay is missing is not finished.
    assert "1 segmented" in segment(model_folder, photos / "a.jpg", "--output", output, "--overlay").output


def test_segment_writes_either_format(model_folder, photos, tmp_path):
    extras = ("--overlay", "--mattes")
    for kind in ("png", "coco-rle"):
        segment(model_folder, photos, "--output", tmp_path / kind, "--format", kind, *extras)
    pngs, jsons = (set(written(tmp_path / kind)) for kind in ("png", "coco-rle"))
    assert pngs - jsons == {"a.png", "sub/b.png", "sub/c.png"}
    assert jsons - pngs == {"a.json", "sub/b.json", "sub/c.json"}
    for name in ("a", "sub/b", "sub/c"):
        expected = read_label(tmp_path / "png" / f"{name}.png", name)[0]
        assert np.array_equal(read_coco_annotation(tmp_path / "coco-rle" / f"{name}.json"), expected)
        (image,) = read_annotation(tmp_path / "coco-rle" / f"{name}.json")["images"]
        assert (photos / name).with_name(image["file_name"]).is_file()
    overlays = [(tmp_path / kind / "a_overlay.png").read_bytes() for kind in ("png", "coco-rle")]
    assert overlays[0] == overlays[1]


def test_finished_photographs_are_skipped_by_format(model_folder, photos, tmp_path):
    arguments = photos / "sub", "--output", tmp_path / "out", "--format", "coco-rle"
    segment(model_folder, *arguments)
    assert "2 of 2 are finished already" in segment(model_folder, *arguments).output
    (tmp_path / "out" / "b.json").unlink()
    assert "1 of 2 are finished already" in segment(model_folder, *arguments).output
    PIL.Image.new("RGB", (9, 9)).save(photos / "sub" / "b.jpg")
    clash = segment(model_folder, *arguments, code=1)
    assert "would both be written to" in " ".join(clash.output.split())


def test_globs_and_an_output_inside_the_input(model_folder, photos, tmp_path):
    segment(model_folder, photos / "**" / "*.*", "--output", photos / "out")
    assert written(photos / "out") == ["a.png", "classes.txt", "sub/b.png", "sub/c.png"]
    assert "3 of 3 are finished already" in segment(model_folder, photos, "--output", photos / "out").output


def test_an_output_above_or_equal_to_the_input(model_folder, photos, tmp_path):
    segment(model_folder, photos / "sub", "--output", photos)
    assert {"b.png", "c.png"} < set(written(photos))
    result = segment(model_folder, photos, "--output", photos, code=1)
    assert "choose another folder for the results" in result.output


def test_photographs_are_turned_upright(model_folder, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (60, 40)).save(tmp_path / "x.jpg", exif=exif)
    segment(model_folder, tmp_path / "x.jpg", "--output", tmp_path / "out")
    with PIL.Image.open(tmp_path / "out" / "x.png") as label_map:
        assert label_map.size == (40, 60)


def test_a_bad_file_is_reported_and_the_others_are_segmented(model_folder, photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 nothing more")
    result = segment(model_folder, photos, "--output", tmp_path / "out", code=1)
    assert "failed: " in result.output
    assert "broken.jpg is not an image file" in result.output
    assert "3 segmented, 1 failed" in result.output
    assert written(tmp_path / "out") == ["a.png", "classes.txt", "sub/b.png", "sub/c.png"]


@pytest.mark.parametrize("clash", ["suffix", "overlay", "input"])
def test_files_that_would_share_a_name_are_refused_before_work_starts(model_folder, photos, tmp_path, clash):
    photo, output = PIL.Image.open(photos / "a.jpg"), tmp_path / "out"
    if clash == "suffix":
        photo.save(photos / "a.png")
        message = "would both be written to"
    elif clash == "overlay":
        photo.save(photos / "a_overlay.jpg")
        message = "would both be written to"
    else:
        photo.save(photos / "a.png")
        (photos / "a.jpg").unlink()
        output, message = photos, "would replace the photograph"
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    arguments = [photos, "--overlay"] if clash != "input" else [photos / "a.png"]
    result = segment(model_folder, *arguments, "--output", output, code=1)
    assert message in result.output.replace("\n", " ")
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before


def test_wrong_paths_and_models(model_folder, photos, tmp_path):
    for arguments, message in (
        (["--model", model_folder, tmp_path / "none"], "no file or folder"),
        (["--model", model_folder, tmp_path / "*.jpg"], "names no photographs"),
        (["--model", tmp_path / "none", photos], "no model folder"),
        (["--model", photos, photos], "holds no weights"),
        (["--model", model_folder, photos, "--device", "nonsense"], "nonsense"),
    ):
        result = run("segment", *arguments, "--output", tmp_path / "out", code=1)
        assert message in result.output
        assert "Traceback" not in result.output
    run("segment", "--model", model_folder, photos, "--output", tmp_path, "--dtype", "int8", code=2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(model_folder, photos, tmp_path, dtype):
    result = segment(model_folder, photos, "--output", tmp_path / "out", "--dtype", dtype)
    assert result.output.count(f", cpu, {dtype}, ") == 3


def test_tiles(model_folder, photos, tmp_path):
    PIL.Image.new("RGB", (150, 90)).save(photos / "wide.png")
    result = segment(model_folder, photos / "wide.png", "--output", tmp_path / "out", "--tile", "64")
    with PIL.Image.open(tmp_path / "out" / "wide.png") as label_map:
        assert label_map.size == (150, 90)
    result = segment(model_folder, photos / "wide.png", "--output", tmp_path / "out2", "--tile", "10", code=1)
    assert "64 pixels or more, got 10" in result.output


def test_photographs_that_do_not_fit_into_memory_are_reported(model_folder, photos, tmp_path, monkeypatch):
    PIL.Image.new("RGB", (900, 800)).save(photos / "large.png")
    monkeypatch.setattr("transformers_massformer.inference.predictor.available_memory", lambda device: 2**20)
    result = segment(model_folder, photos, "--output", tmp_path / "out", code=1)
    printed = result.output.replace("\n", " ")
    assert "900 x 800 pixels need more than" in printed
    assert "Use tiles" in printed
    assert "3 segmented, 1 failed" in result.output


def test_an_interrupted_run_can_be_resumed(model_folder, tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(40):
        PIL.Image.new("RGB", (500, 500), (i, i, i)).save(tmp_path / "photos" / f"{i:02}.png")
    output = tmp_path / "out"
    command = ("segment", tmp_path / "photos", "--model", model_folder, "--output", output)
    code, printed = run_until(lambda: any(output.glob("*.png")), signal.SIGINT, *command)
    assert code == 130, printed
    assert "interrupted" in printed
    assert "Traceback" not in printed
    finished = [name for name in written(output) if name != "classes.txt"]
    assert 0 < len(finished) < 40
    for name in finished:
        PIL.Image.open(output / name).load()
    result = segment(model_folder, tmp_path / "photos", "--output", output)
    assert f"{len(finished)} of 40 are finished already" in result.output
    assert len(written(output)) == 41


def test_convert(tmp_path):
    torch.save(golden_state_dict("r18lite"), tmp_path / "release.pth")
    arguments = ["--checkpoint", tmp_path / "release.pth", "--variant", "r18-lite", "--output", tmp_path / "out"]
    run("convert", *arguments)
    assert written(tmp_path / "out") == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert "already holds a model" in run("convert", *arguments, code=1).output
    run("convert", *arguments, "--overwrite")
    script = run_python("scripts/convert_massformer_to_hf.py", *arguments, code=1)
    assert "already holds a model" in script.stderr


def test_semantic_priors_are_drawn_beside_the_overlay(peers, tmp_path):
    photo = PIL.Image.effect_noise((75, 51), 60).convert("RGB")
    photo.save(tmp_path / "photo.png")
    command = (tmp_path / "photo.png", "--output", tmp_path / "out", "--overlay", "--show-semantic-priors")
    segment(peers("semask"), *command)
    model, processor = tiny_load(peers("semask"))
    with torch.no_grad():
        maps = model(**processor(photo, return_tensors="pt")).semantic_maps
    with PIL.Image.open(tmp_path / "out" / "photo_semantic_priors.png") as picture:
        assert picture.size == (150, 102)
        for stage, semantic_map in enumerate(maps):
            resized = F.interpolate(semantic_map, size=(51, 75), mode="bilinear")[0].argmax(0).numpy()
            left, top = stage % 2 * 75, stage // 2 * 51
            expected = np.asarray(overlay_image(photo, resized, 7, 0.6))
            shown = np.asarray(picture)[top : top + 51, left : left + 75]
            assert (shown != expected).mean() < 0.01
    plain = f"--model={peers('massformer')}"
    for option, words in (("--tile=64", "a whole photograph"), (plain, "no semantic layers")):
        assert words in segment(peers("semask"), *command, "--overwrite", option, code=1).stderr


def tiny_load(folder):
    return AutoModelForSemanticSegmentation.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)


def test_semask_is_converted_on_the_command_line(tmp_path):
    torch.save({"state_dict": semask_golden_state_dict()}, tmp_path / "release.pth")
    command = ("convert", "--checkpoint", tmp_path / "release.pth", "--output", tmp_path / "out")
    run(*command, "--variant", "semask-swin-t", "--semantic-attention", "window,window,global,global")
    model, _ = tiny_load(tmp_path / "out")
    assert model.config.backbone_config.semantic_attention == ["window", "window", "global", "global"]
    for options, words in (
        (["--variant", "r50", "--semantic-attention", "window"], "is for SeMask"),
        (["--variant", "semask-swin-t", "--semantic-attention", "window,all", "--overwrite"], "an entry for each"),
    ):
        assert words in run(*command, *options, code=1).stderr


@pytest.mark.parametrize("tile", [[], ["--tile", "64"]], ids=["whole", "tiles"])
def test_mattes_cutouts_and_bokeh_are_written_beside_the_label_map(model_folder, tmp_path, tile):
    photo = PIL.Image.effect_noise((90, 70), 60).convert("RGB")
    photo.save(tmp_path / "photo.png")
    edits = ("--mattes", "--cutouts", "--bokeh", "human", "--bokeh", "sky")
    command = (model_folder, tmp_path / "photo.png", "--output", tmp_path / "out", *edits, *tile)
    segment(*command)
    with PIL.Image.open(tmp_path / "out" / "photo.png") as image:
        label_map = np.asarray(image)
    labels = MASS13K_LABELS
    present = {labels[index] for index in np.unique(label_map)}
    for name in ("mattes", "cutouts"):
        files = {path.stem for path in (tmp_path / "out" / f"photo_{name}").iterdir()}
        assert files == present
    mattes = {}
    for label in present:
        with PIL.Image.open(tmp_path / "out" / "photo_mattes" / f"{label}.png") as matte:
            mattes[label] = np.asarray(matte)
            assert matte.mode == "L"
        with PIL.Image.open(tmp_path / "out" / "photo_cutouts" / f"{label}.png") as cut:
            assert np.array_equal(np.asarray(cut)[:, :, 3], (firm_matte(mattes[label]) * 255).round())
    # The label map has the class with the largest share of the scores.
    shares = np.stack([mattes.get(label, np.zeros_like(label_map)) for label in labels])
    best = shares.max(0)
    clear = (shares == best).sum(0) == 1
    assert (shares.argmax(0) == label_map)[clear].mean() > 0.99
    with PIL.Image.open(tmp_path / "out" / "photo_bokeh.png") as picture:
        assert picture.size == photo.size
    assert "finished already" in segment(*command).output
    for options, words in (
        (["--bokeh", "dragon"], "--bokeh dragon: the model has no such class"),
        (["--bokeh-strength", "2"], "must be above 0 and at most 0.1"),
    ):
        assert words in segment(*command, "--overwrite", *options, code=1).stderr
    refused = segment(*command[:2], "--output", tmp_path / "other", "--refine-mattes", code=1)
    assert "--refine-mattes has no effect without --mattes or --cutouts or --bokeh" in refused.stderr
