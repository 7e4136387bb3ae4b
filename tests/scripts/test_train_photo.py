"""The training of hub/massformer-photo: its clocks, and what is published."""

import math
from types import SimpleNamespace

import pytest
import torch
import train_photo
from support.commands import run_python
from support.tiny import tiny_model
from transformers import TrainerControl

from transformers_massformer import MaSSFormerForSemanticSegmentation, MaSSFormerImageProcessor


STATE, ARGS = SimpleNamespace(global_step=7, max_steps=100), SimpleNamespace(warmup_steps=4)


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that the test sets."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(train_photo.time, "monotonic", lambda: now.seconds)
    return now


def test_a_deadline_saves_and_then_stops(clock):
    deadline, control = train_photo.Deadline(minutes=2), TrainerControl()
    deadline.on_train_begin(ARGS, STATE, control)
    for seconds, is_over in ((119, False), (121, True)):
        clock.seconds = 1000 + seconds
        deadline.on_step_end(ARGS, STATE, control)
        assert control.should_save is is_over
    with pytest.raises(train_photo.Paused, match="7 of 100 steps"):
        deadline.on_save(ARGS, STATE, control)
    # The last step is saved by the training itself.
    finished = SimpleNamespace(global_step=100, max_steps=100)
    deadline, control = train_photo.Deadline(minutes=0.01), TrainerControl()
    clock.seconds += 60
    deadline.on_step_end(ARGS, finished, control)
    deadline.on_save(ARGS, finished, control)
    assert not control.should_save


def test_annealing_follows_a_cosine_over_the_time(clock):
    annealing, control = train_photo.Annealing(minutes=1), TrainerControl()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    optimizer.param_groups[0]["initial_lr"] = 0.5
    annealing.on_train_begin(ARGS, STATE, control)
    for seconds in (0, 15, 30, 59):
        clock.seconds = 1000 + seconds
        annealing.on_pre_optimizer_step(ARGS, STATE, control, optimizer=optimizer)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25 * (1 + math.cos(math.pi * seconds / 60)))
        annealing.on_step_end(ARGS, STATE, control)
        assert not control.should_training_stop
    clock.seconds = 1000
    annealing.on_pre_optimizer_step(ARGS, SimpleNamespace(global_step=0), control, optimizer=optimizer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 / 4)
    annealing.on_pre_optimizer_step(
        SimpleNamespace(warmup_steps=0), SimpleNamespace(global_step=0), control, optimizer=optimizer
    )
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)
    clock.seconds = 1061
    annealing.on_step_end(ARGS, STATE, control)
    assert control.should_training_stop


def test_annealing_needs_a_time(tmp_path):
    printed = run_python("scripts/train_photo.py", "--work", tmp_path, "--anneal", code=2).stderr
    assert "--anneal needs --minutes" in printed


def test_published_weights_predict_as_the_trained_ones(tmp_path):
    model = tiny_model(pixel_loss_weight=1.0, mask_piloted=True)
    source, published = tmp_path / "source", tmp_path / "published"
    published.mkdir()
    model.save_pretrained(source)
    MaSSFormerImageProcessor().save_pretrained(source)
    train_photo.write_weights(source, published)
    loaded, info = MaSSFormerForSemanticSegmentation.from_pretrained(published, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.dtype == torch.float32
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixel_values).logits, model(pixel_values).logits, rtol=0.05, atol=0.05)


def test_unlabelled_classes_have_no_score():
    scores = {
        "overall_accuracy": 0.9,
        "per_category_iou": [0.5, 0.0, 0.75],
        "per_category_accuracy": [0.6, None, 1.0],
    }
    table = train_photo.score_table(
        {"a": {"labels": ["x", "y", "z"], "images": dict.fromkeys("abc"), "scores": scores}}
    )
    assert table == [
        ["", "images", "pixel accuracy", "mIoU", "x", "y", "z"],
        ["a", "3", "90.0", "62.5", "50.0", "-", "75.0"],
    ]
