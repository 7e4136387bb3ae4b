"""Test that batches reach the main process, whatever shared memory there is."""

import pickle
from multiprocessing.reduction import ForkingPickler

import PIL.Image
import pytest
import torch
from support.tiny_trainer import items_of, training_set, write_data
from torch.utils.data import DataLoader, Dataset

from transformers_massformer.data.samples import EvaluationSet
from transformers_massformer.training import workers
from transformers_massformer.training.collation import collate as training_collate
from transformers_massformer.training.collation import collate_without_quality, mask_collate
from transformers_massformer.training.workers import WorkerCollate


class Samples(Dataset):
    """Items with tensors of every kind that batches contain."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {
            "pixel_values": torch.full((3, 8, 8), float(index)),
            "label": torch.full((index + 1, 2), index, dtype=torch.uint8),
            "image": PIL.Image.new("RGB", (index + 1, 2)),
        }


def collate(samples):
    return {
        "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
        "masks": [sample["label"] > 0 for sample in samples],
        "nested": ({"labels": samples[0]["label"]}, samples[0]["image"], "name"),
    }


def test_batches_do_not_depend_on_how_they_travel(monkeypatch):
    messages = []
    monkeypatch.setattr(workers.logger, "warning_once", messages.append)
    expected = list(DataLoader(Samples(), batch_size=2, collate_fn=WorkerCollate(collate)))
    for free in (None, 2**30, 0):
        monkeypatch.setattr(workers, "free_space", lambda folder, free=free: free)
        loader = DataLoader(
            Samples(), 2, num_workers=1, collate_fn=WorkerCollate(collate), multiprocessing_context="fork"
        )
        for batch, wanted in zip(loader, expected, strict=True):
            assert torch.equal(batch["pixel_values"], wanted["pixel_values"])
            assert batch["pixel_values"].is_shared() == (free != 0)
            assert all(map(torch.equal, batch["masks"], wanted["masks"]))
            assert torch.equal(batch["nested"][0]["labels"], wanted["nested"][0]["labels"])
            assert batch["nested"][1].size == wanted["nested"][1].size
            batch["pixel_values"] += 1
    # Warnings are logged in the workers.
    assert not messages


@pytest.mark.parametrize("free", [10_000, 20_000])
def test_the_need_of_all_workers_counts(monkeypatch, free):
    """Four workers with three batches each of 2 x 3 x 8 x 8 float32, 18 kB together, and a few labels."""
    monkeypatch.setattr(workers, "free_space", lambda folder: free)
    monkeypatch.setattr(workers, "get_worker_info", lambda: type("Worker", (), {"num_workers": 4, "id": 0}))
    messages = []
    monkeypatch.setattr(workers.logger, "warning_once", messages.append)
    batch = WorkerCollate(collate)([Samples()[0], Samples()[1]])
    is_piped = isinstance(batch["pixel_values"], workers.PipedTensor)
    assert is_piped == (free == 10_000)
    assert len(messages) == is_piped
    sent = pickle.loads(pickle.dumps(batch))
    assert torch.equal(sent["pixel_values"], collate([Samples()[0], Samples()[1]])["pixel_values"])


def test_workers_that_are_not_forked_get_what_they_need(tmp_path):
    """Without fork, as on macOS and Windows, data sets and collate functions are pickled."""
    data = write_data(tmp_path)
    train = training_set(data)
    for dataset in (train, EvaluationSet(items_of(data, "val"))):
        assert ForkingPickler.dumps(dataset)
    for function in (training_collate, collate_without_quality, mask_collate):
        copy = pickle.loads(ForkingPickler.dumps(WorkerCollate(function)))
        assert copy.collate is function


@pytest.mark.slow
def test_spawned_workers_make_the_same_batches(tmp_path):
    train = training_set(write_data(tmp_path))
    options = {"batch_size": 2, "collate_fn": WorkerCollate(training_collate)}
    spawned = DataLoader(train, num_workers=1, multiprocessing_context="spawn", persistent_workers=True, **options)
    for epoch in (0, 1):
        train.set_epoch(epoch)
        for batch, expected in zip(spawned, DataLoader(train, **options), strict=True):
            assert batch.keys() == expected.keys()
            assert all(torch.equal(batch[name], expected[name]) for name in batch)
