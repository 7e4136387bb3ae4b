"""Stop work that takes too long."""

import contextlib
import math
import threading
import time
from collections.abc import Generator

from torch import nn


class Deadline:
    """
    Time limit for each of several pieces of work, which run one after the other. A thread cannot be stopped from
    outside, so the work checks the limit itself: a watched model does so before each of its modules.

    Args:
        seconds (`float`): Time limit of each piece of work.

    Raises:
        ValueError: If `seconds` is not above 0.
    """

    def __init__(self, seconds: float):
        if not seconds > 0:
            raise ValueError(f"The time limit must be above 0 seconds, got {seconds}.")
        self.seconds = seconds
        self.end = math.inf
        self.stopped = False
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """Run a piece of work as a `with` block. It first waits for the current one; only then its time starts."""
        with self.lock:
            self.end = time.monotonic() + self.seconds
            try:
                self.check()
                yield
            finally:
                self.end = math.inf

    def check(self, *_):
        """
        Check the time limit. Works as a forward pre-hook too.

        Raises:
            TimeoutError: If the time limit is exceeded or all work has been stopped.
        """
        if self.stopped:
            raise TimeoutError("The server is shutting down.")
        if time.monotonic() > self.end:
            raise TimeoutError(f"This took longer than {self.seconds:g} seconds. Use a smaller photo.")

    def watch(self, model: nn.Module):
        """Make a model check the time limit before each of its modules."""
        for module in model.modules():
            module.register_forward_pre_hook(self.check)

    def stop(self):
        """Stop all current and future work."""
        self.stopped = True
