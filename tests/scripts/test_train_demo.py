"""The card that `scripts/train_demo.py` writes."""

import shutil

import pytest
import train_demo
from huggingface_hub import ModelCard

from transformers_massformer import MASS13K_LABELS


SCORES = ("iou", "boundary_iou", "bf1")


def results(value):
    """Return the contents of a results.json in which every score has the same value."""
    scores = {f"mean_{name}": value for name in SCORES}
    scores |= {f"per_category_{name}": [value] * len(MASS13K_LABELS) for name in SCORES}
    return {"labels": list(MASS13K_LABELS), "scores": scores}


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        (None, set()),
        (0.25, {"For comparison", "| Mask2Former | 25.00 |"}),
        (0.75, {"For comparison", "| Mask2Former | 75.00 |", "**MaSSFormer is not better here.**"}),
    ],
)
def test_the_card(tmp_path, monkeypatch, peer, words):
    shutil.copy(train_demo.CHECKPOINT / "model.safetensors", tmp_path)
    monkeypatch.setattr(train_demo, "CHECKPOINT", tmp_path)
    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "README.md").write_text("---\ntags: []\n---\n\n* Data: 5 images\n* Steps: 800, 4 crops each\n")
    scores = [results(0.5)] if peer is None else [results(0.5), results(peer)]
    train_demo.write_card([stage, stage], *scores, train_count=3, eval_count=2, size="640x480")
    text = ModelCard.load(tmp_path / "README.md", ignore_metadata_errors=False).text
    assert "3,654,160 parameters" in text
    assert "| mean | 50.00 | 50.00 | 0.5000 |" in text
    assert "2 held-out scenes of 640 x 480 pixels" in text
    assert "* Stage 1\n  * Steps: 800, 4 crops each\n* Stage 2\n  * Steps: 800, 4 crops each\n* Command:" in text
    assert {word for word in ("For comparison", "**MaSSFormer is not better here.**") if word in text} == {
        word for word in words if "|" not in word
    }
    assert {word for word in words if word not in text} == set()
