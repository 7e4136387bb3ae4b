"""Order of the training data."""

from pathlib import Path

import pytest
from support.tiny import tiny_model
from support.tiny_trainer import arguments, training_set, write_data

from transformers_massformer.data.training_set import EpochSampler
from transformers_massformer.training import MaSSFormerTrainer
from transformers_massformer.training.collation import collate


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


@pytest.mark.parametrize("workers", [0, 1])
def test_every_epoch_has_samples_of_its_own(data, tmp_path, workers):
    seen = []
    original = MaSSFormerTrainer.compute_loss

    class Recorder(MaSSFormerTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.append(inputs["pixel_values"].sum().item())
            return original(self, model, inputs, *args, **kwargs)

    dataset = training_set(data)
    Recorder(
        model=tiny_model(),
        args=arguments(tmp_path, max_steps=6, dataloader_num_workers=workers),
        train_dataset=dataset,
    ).train()
    expected = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        order = dataset.order()
        for start in range(0, 6, 2):
            batch = collate([dataset[index] for index in order[start : start + 2]])
            expected.append(batch["pixel_values"].sum().item())
    assert seen == pytest.approx(expected)
    assert len(set(seen)) == 6
