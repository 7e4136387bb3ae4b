"""Training in several processes, and after a process was killed."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_trainer import write_data
from support.training_job import run_job

from transformers_massformer.training.checkpoints import last_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def logged_losses(result: dict) -> list[dict[str, float]]:
    """Return the logged loss terms of each step."""
    return [
        {name: value for name, value in entry.items() if name.startswith("loss")}
        for entry in result["log"]
        if "loss" in entry
    ]


def test_two_processes_do_what_one_does(data, tmp_path):
    options = {"repeatable": True, "evaluate": True, "fixed_norm_statistics": "all", "optim": "sgd", "max_steps": 5}
    (one,) = run_job(data, tmp_path / "one", **options, per_device_train_batch_size=4)
    two = run_job(data, tmp_path / "two", **options, per_device_train_batch_size=2, processes=2)
    assert len(two) == 2
    assert len(logged_losses(one)) == 5
    for expected, found in zip(logged_losses(one), logged_losses(two[0]), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    expected = torch.load(tmp_path / "one" / "gradients_0.pt", weights_only=True)
    for rank in range(2):
        found = torch.load(tmp_path / "two" / f"gradients_{rank}.pt", weights_only=True)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours - theirs).norm() < 1e-5 * theirs.norm()
    scores = [{k: v for k, v in result["metrics"].items() if "mean" in k or "iou" in k} for result in (one, *two)]
    assert scores[0] == pytest.approx(scores[1], nan_ok=True)
    assert scores[0] == pytest.approx(scores[2], nan_ok=True)


@pytest.mark.parametrize("labels", [[3, None], [255, None], [255, 255]], ids=str)
def test_no_process_waits_in_vain(data, tmp_path, labels):
    results = run_job(data, tmp_path, max_steps=2, uniform_labels=labels, processes=2)
    assert len(results) == 2
    for entry in logged_losses(results[0]):
        assert all(np.isfinite(list(entry.values())))


def test_no_thread_of_the_process_group_is_left_at_the_end(data, tmp_path):
    # A thread alive at interpreter shutdown aborts the process, once in about a hundred trainings.
    for result in run_job(data, tmp_path, max_steps=1, evaluate=True, processes=2):
        assert result["threads"]
        assert not [name for name in result["threads"] if "gloo" in name]


def test_a_killed_training_resumes_as_if_uninterrupted(data, tmp_path):
    options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2, "dataloader_num_workers": 1}
    (whole,) = run_job(data, tmp_path / "whole", **options)
    killed = tmp_path / "killed"
    # In the middle of the second epoch; an epoch has three steps of two images each.
    run_job(data, killed, **options, kill_at=5, code=-signal.SIGKILL)
    assert last_checkpoint(killed, 1) == killed / "checkpoint-4"
    # An incomplete checkpoint, as if the process had been killed while writing it.
    (killed / "checkpoint-6").mkdir()
    (killed / "checkpoint-6" / "model.safetensors").write_bytes(b"half")
    (resumed,) = run_job(data, killed, **options)
    expected, found = logged_losses(whole), logged_losses(resumed)
    assert len(found) == len(expected) == 8
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours == pytest.approx(theirs, rel=1e-6), step
