"""Loss over several processes: their mean is the loss of the complete batch, and no process waits forever."""

import tempfile

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from support.tiny import RepeatablePoints, block_labels, random_predictions, tiny_config

from transformers_massformer.models.loss_massformer import MaSSFormerLoss


def uneven_labels(batch_size):
    """Create images with many classes, one and none, so that the processes' normalizers differ."""
    torch.manual_seed(0)
    labels = block_labels(batch_size, 32, 32)
    labels[-1], labels[-2] = 255, 3
    return labels


def losses_of(images: slice) -> dict[str, float]:
    config = tiny_config()
    torch.manual_seed(0)
    class_logits, embeddings, features, edges = random_predictions(config, 4, 32, 32)
    parts = [x[images] for x in class_logits], [x[images] for x in embeddings], features[images], edges[images]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", RepeatablePoints())
        losses = MaSSFormerLoss(config)(*parts, uneven_labels(4)[images])
    return {name: value.item() for name, value in losses.items()}


def worker(rank: int, rendezvous: str, results):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    try:
        results[rank] = losses_of(slice(2 * rank, 2 * rank + 2))
    finally:
        dist.destroy_process_group()


def test_the_mean_over_processes_is_the_loss_of_the_whole_batch():
    with mp.get_context("spawn").Manager() as manager, tempfile.TemporaryDirectory() as folder:
        results = manager.dict()
        mp.spawn(worker, args=(f"{folder}/rendezvous", results), nprocs=2)
        first, second = results[0], results[1]
    whole = losses_of(slice(0, 4))
    assert whole.keys() == first.keys() == second.keys()
    for name, value in whole.items():
        assert (first[name] + second[name]) / 2 == pytest.approx(value, rel=1e-5), name
