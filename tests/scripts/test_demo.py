"""`make demo`, and the checkpoint that it runs."""

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors import safe_open
from support import ROOT
from support.commands import run_python
from transformers import AutoModelForSemanticSegmentation

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.editing import class_mattes


CHECKPOINT = ROOT / "hub" / "massformer-demo"


def mean_scores(printed: str) -> list[float]:
    """Parse mIoU, BIoU and BF1 from the row of means."""
    (line,) = [line for line in printed.splitlines() if "mean" in line]
    return [float(cell) for cell in line.replace("│", " ").split()[1:]]


def test_demo_goes_all_the_way(tmp_path):
    printed = run_python("scripts/demo.py", "--output", tmp_path, "--size", "640x480").stdout
    assert "segmented by massformer-demo" in printed
    assert len(mean_scores(printed)) == 3
    for name, mode in (("scene.jpg", "RGB"), ("label_map.png", "P"), ("truth.png", "P"), ("overlay.jpg", "RGB")):
        with PIL.Image.open(tmp_path / name) as picture:
            assert (picture.size, picture.mode) == ((640, 480), mode)
    mattes = [np.asarray(PIL.Image.open(tmp_path / "mattes" / f"{label}.png")) for label in MASS13K_LABELS]
    # Each matte is rounded separately.
    assert np.abs(np.sum(mattes, axis=0, dtype=int) - 255).max() <= 4


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
    for words in ("Photographs are out of its distribution", "50 held-out scenes", "Steps:", "Hardware:", "| mean |"):
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
