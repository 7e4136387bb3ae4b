"""Run a function on many items in a pool of processes of a Ray cluster, each with its own model."""

from __future__ import annotations

import logging
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from .connection import Resources


# How often an item is tried again after the death of its process, by default.
RETRIES = 3
# Items are sent in at most this many blocks, each of which takes Ray about a millisecond to keep account of.
MAX_BLOCKS = 10_000
# What a process begins before its first item.
START = -1


class Broken(RuntimeError):
    """Error of a pool whose processes cannot work at all."""


def count_attempts() -> Any:
    """
    Start an actor of Ray that counts how often each item was begun and not ended, because its process died.

    Returns:
        `ActorHandle`: With the methods `begin` and `end`.
    """
    import ray

    # A class inside a function is sent as code: its process need not import this package, nor PyTorch.
    class Attempts:
        def __init__(self):
            self.open: dict[int, int] = {}

        def begin(self, index: int) -> int:
            """Return how often an item has been begun since it was last ended, this time included."""
            self.open[index] = self.open.get(index, 0) + 1
            return self.open[index]

        def end(self, index: int):
            """Note that an item is done, whatever became of it."""
            self.open.pop(index, None)

    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()


class Worker:
    """
    Runs in an actor of Ray: applies a function to items, one after the other.

    Args:
        start (`Callable[[], Callable]`): Makes the function, such as by loading a model.
        resources ([`Resources`]): Size of the pool.
        attempts (`ActorHandle`): From [`count_attempts`].
        retries (`int`): See [`run_in_pool`].
    """

    def __init__(self, start: Callable[[], Callable[[Any], Any]], resources: Resources, attempts: Any, retries: int):
        import ray
        import torch

        torch.set_num_threads(resources.cpus_per_actor)
        self.attempts, self.retries, self.function, self.broken = attempts, retries, None, ""
        # All processes may be starting now.
        if ray.get(attempts.begin.remote(START)) > resources.num_actors + retries:
            self.broken = f"The process on {socket.gethostname()} died each time while it started; is memory short?"
            return
        try:
            self.function = start()
        # Whatever it is, all items would fail with it; Ray would only start the process again.
        except Exception as error:
            self.broken = describe(error)
        ray.get(attempts.end.remote(START))

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """Yield the index of each item and what became of it, as soon as it is done, and in the order of the batch."""
        for index, item in zip(batch["index"], batch["item"], strict=True):
            yield {"index": [int(index)], "answer": [pickle.dumps(self.answer(int(index), item))]}

    def answer(self, index: int, item: bytes) -> tuple[bool, Any]:
        """Return whether the function worked, and its result or error; `None` is the result of an item given up."""
        import ray

        if self.function is None:
            return False, self.broken
        if ray.get(self.attempts.begin.remote(index)) > self.retries + 1:
            return True, None
        try:
            return True, self.function(pickle.loads(item))
        except Exception as error:
            return False, describe(error)
        finally:
            ray.get(self.attempts.end.remote(index))


def describe(error: Exception) -> str:
    """Describe an error that ends the job, with its type and the machine."""
    return f"{type(error).__name__} on {socket.gethostname()}: {error}"


def run_in_pool(
    start: Callable[[], Callable[[Any], Any]], items: Sequence[Any], resources: Resources, retries: int = RETRIES
) -> Iterator[tuple[int, Any]]:
    """
    Apply a function to items in a pool of actors. If an actor dies, it is started again and its items are tried again;
    each item has one result.

    Args:
        start (`Callable[[], Callable]`): Makes the function in each actor; both are pickled.
        items (`Sequence`): The items.
        resources ([`Resources`]): Size of the pool.
        retries (`int`, *optional*): How often an item is tried again after the death of its process.

    Yields:
        `tuple[int, Any]`: The index of an item and its result, as they are done; at the end, `None` as the result of
        each item whose process died each time.

    Raises:
        Broken: If the function cannot be made, or raises an error.
    """
    import ray.data

    configure()
    rows = [{"index": index, "item": pickle.dumps(item)} for index, item in enumerate(items)]
    resources = replace(resources, num_actors=min(resources.num_actors, len(rows)))
    done = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS)).map_batches(
        Worker,
        fn_constructor_args=(start, resources, count_attempts(), retries),
        # Ray demands a number when there are GPUs.
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=resources.num_actors),
        num_cpus=resources.cpus_per_actor,
        num_gpus=resources.gpus_per_actor or None,
    )
    open_items = set(range(len(items)))
    for row in done.iter_rows():
        index = row["index"]
        if index in open_items:
            open_items.remove(index)
            worked, answer = pickle.loads(row["answer"])
            if not worked:
                raise Broken(answer)
            yield index, answer
    for index in sorted(open_items):
        yield index, None


def configure():
    """Let Ray Data return each result at once, give up single blocks only, and print nothing."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    context.target_max_block_size = 1
    # An item that is given up is reported as such; errors of actors come back as answers.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
