"""`make demo`, and the checkpoint that it runs."""

import re
from pathlib import Path

import demo
import numpy as np
import PIL.Image
import pytest
import torch
from safetensors import safe_open
from support.commands import run_python
from transformers import AutoModelForSemanticSegmentation

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.editing import class_mattes


CHECKPOINT = demo.CHECKPOINT


def mean_scores(printed: str) -> list[float]:
    """Parse mIoU, BIoU and BF1 from the row of means."""
    (line,) = [line for line in printed.splitlines() if "mean" in line]
    return [float(cell) for cell in line.replace("│", " ").split()[1:]]


def sum_of_mattes(folder: Path) -> np.ndarray:
    return np.sum([PIL.Image.open(folder / f"{label}.png") for label in MASS13K_LABELS], axis=0, dtype=int)


def test_demo_goes_all_the_way(tmp_path):
    small = tmp_path / "small.jpg"
    with PIL.Image.open(demo.PHOTO) as photo:
        photo.resize((504, 378)).save(small)
    options = ("--output", tmp_path, "--photo", small, "--class", "sky", "--size", "640x480")
    printed = run_python("scripts/demo.py", *options).stdout
    assert f"loaded {demo.CHECKPOINT.name}" in printed
    assert re.findall(r"segmented (\d+ x \d+) pixels in .* peak memory", printed) == ["504 x 378", "640 x 480"]
    assert "cut out sky" in printed
    assert len(mean_scores(printed)) == 3
    modes = {"scene.jpg": "RGB", "truth.png": "P", "photo_cutout.png": "RGBA"}
    for half in ("", "photo_"):
        modes |= {f"{half}label_map.png": "P", f"{half}overlay.jpg": "RGB"}
        # Each matte is rounded separately.
        assert np.abs(sum_of_mattes(tmp_path / f"{half}mattes") - 255).max() <= 4
    for name, mode in modes.items():
        with PIL.Image.open(tmp_path / name) as picture:
            assert (picture.size, picture.mode) == ((504, 378) if "photo_" in name else (640, 480), mode)
    # The sky is opaque in the cut-out where the label map has it, and only there.
    sky = np.asarray(PIL.Image.open(tmp_path / "photo_label_map.png")) == MASS13K_LABELS.index("sky")
    alpha = np.asarray(PIL.Image.open(tmp_path / "photo_cutout.png"))[..., 3]
    assert alpha[sky].mean() > 200
    assert alpha[~sky].mean() < 50


def test_the_photograph_is_small_and_attributed():
    with PIL.Image.open(demo.PHOTO) as photo:
        assert photo.width >= 3840
        assert not photo.getexif()
    assert demo.PHOTO.stat().st_size <= 3_000_000
    words = (demo.PHOTO.parent / "README.md").read_text()
    for name in ("Title", "Author", "Source", "Licence", "Changes"):
        assert f"* {name}: " in words
    assert demo.PHOTO.name in words


def test_the_largest_subject_is_no_background():
    label_map = np.full((4, 4), MASS13K_LABELS.index("sky"), dtype=np.uint8)
    label_map[0, :2] = MASS13K_LABELS.index("building")
    label_map[1, 0] = MASS13K_LABELS.index("human")
    assert demo.largest_subject(label_map) == "building"


def test_unknown_classes_are_named():
    assert "There is no class tree, only others, human" in " ".join(
        run_python("scripts/demo.py", "--class", "tree", code=2).stderr.replace("│", " ").split()
    )


def test_the_checkpoint_is_small_and_loads_in_single_precision():
    weights = CHECKPOINT / "model.safetensors"
    assert weights.stat().st_size <= 15_000_000
    with safe_open(weights, "pt") as file:
        stored = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    assert stored == {torch.float16, torch.int64}
    model = AutoModelForSemanticSegmentation.from_pretrained(CHECKPOINT)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert list(model.config.id2label.values()) == list(MASS13K_LABELS)


def test_the_card_says_what_the_checkpoint_is():
    card = (CHECKPOINT / "README.md").read_text()
    for words in ("for research\nonly", "Stanford Background", "Steps:", "Hardware:", "mIoU"):
        assert words in card


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_mattes_share_what_there_is(dtype):
    scores = torch.rand(4, 300, 5).to(dtype)
    scores[:, 7] = 0
    mattes = np.stack([np.asarray(matte) for matte in class_mattes(scores)])
    expected = scores.double() / scores.double().sum(dim=0) * 255
    expected[:, 7] = 0
    assert np.abs(mattes - expected.numpy()).max() <= 0.501
    assert (mattes[:, 7] == 0).all()


@pytest.mark.slow
def test_demo_at_full_size(tmp_path):
    iou, boundary_iou, bf1 = mean_scores(run_python("scripts/demo.py", "--output", tmp_path).stdout)
    assert iou > 50
    assert boundary_iou > 25
    assert bf1 > 0.25
