"""Order of the training data."""

from pathlib import Path

import pytest
from support.tiny import tiny_model
from support.tiny_trainer import arguments, training_set, write_data
from transformers import Trainer

from transformers_massformer.data.training_set import EpochSampler
from transformers_massformer.training import MaSSFormerTrainer


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def test_order_is_a_function_of_seed_and_epoch(data):
    first, second = training_set(data), training_set(data)
    second.set_epoch(1)
    orders = [list(EpochSampler(first)), list(EpochSampler(second)), list(EpochSampler(training_set(data)))]
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == list(range(6))
    assert list(EpochSampler(first, 4)) == orders[0][:4]
    assert len(EpochSampler(first, 4)) == 4


# Python 3.12 and later warn when a process with threads forks its workers.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", [MaSSFormerTrainer, Trainer])
@pytest.mark.parametrize("workers", [0, 1], ids=["alone", "persistent"])
def test_every_epoch_has_samples_of_its_own(data, tmp_path, workers, kind):
    seen = []

    class Recorder(kind):
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.extend(inputs["pixel_values"].sum((1, 2, 3)).tolist())
            return super().compute_loss(model, inputs, *args, **kwargs)

    dataset = training_set(data)
    options = {"dataloader_num_workers": workers, "dataloader_persistent_workers": bool(workers)}
    args = arguments(tmp_path, max_steps=6, **options)
    Recorder(model=tiny_model(), args=args, train_dataset=dataset).train()
    assert len(set(seen)) == 12
    for epoch, found in enumerate((seen[:6], seen[6:])):
        dataset.set_epoch(epoch)
        expected = [dataset[index]["pixel_values"].sum().item() for index in dataset.order()]
        # The plain trainer has an order of its own.
        if kind is Trainer:
            found, expected = sorted(found), sorted(expected)
        assert found == pytest.approx(expected)
