"""When a process of a pool gives up an item, and what it answers; Ray is replaced by a stand-in."""

import pickle
from types import SimpleNamespace

import pytest

from transformers_massformer.cluster.connection import Resources
from transformers_massformer.cluster.pool import START, Worker


ray = pytest.importorskip("ray")


class Attempts:
    """Counts as the actor does, in this process."""

    def __init__(self):
        self.open = {}
        self.begin = SimpleNamespace(remote=self.count)
        self.end = SimpleNamespace(remote=lambda index: self.open.pop(index, None))

    def count(self, index):
        self.open[index] = self.open.get(index, 0) + 1
        return self.open[index]


@pytest.fixture
def attempts(monkeypatch):
    monkeypatch.setattr(ray, "get", lambda value: value)
    return Attempts()


def worker(attempts, start=lambda: lambda item: item + 1):
    return Worker(start, Resources(2, 1, 0), attempts, 3)


def answers(worker, items):
    batch = {"index": range(len(items)), "item": [pickle.dumps(item) for item in items]}
    return [pickle.loads(row["answer"][0]) for row in worker(batch)]


def test_items_are_answered_one_by_one(attempts):
    assert answers(worker(attempts), [1, 2, "x"])[:2] == [(True, 2), (True, 3)]
    worked, error = answers(worker(attempts), ["x"])[0]
    assert not worked
    assert error.startswith("TypeError on ")
    assert attempts.open == {}


def test_an_item_whose_process_died_each_time_is_given_up(attempts):
    attempts.open[0] = 3
    assert answers(worker(attempts), [1]) == [(True, 2)]
    attempts.open[0] = 4
    assert answers(worker(attempts), [1]) == [(True, None)]
    # Also if its block is tried again because of another item.
    assert answers(worker(attempts), [1]) == [(True, None)]


def test_processes_that_die_while_they_start_end_the_job(attempts):
    # Both of the pool may be starting, and three may have died.
    attempts.open[START] = 4
    assert answers(worker(attempts), [1]) == [(True, 2)]
    attempts.open[START] = 5
    assert "died each time while it started" in answers(worker(attempts), [1])[0][1]
