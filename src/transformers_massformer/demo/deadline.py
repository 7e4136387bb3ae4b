"""An end for work that takes too long."""

import contextlib
import math
import threading
import time
from collections.abc import Generator

from torch import nn


class Deadline:
    """
    A time by which work must be done, one piece of work after the other. A thread cannot be ended from outside, so the
    work asks: a model, once it is watched, before each of its modules.

    Args:
        seconds (`float`): Time for each piece of work.

    Raises:
        ValueError: If there is no time.
    """

    def __init__(self, seconds: float):
        if not seconds > 0:
            raise ValueError(f"The time for a photograph must be above 0 seconds, got {seconds}.")
        self.seconds = seconds
        self.end = math.inf
        self.stopped = False
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """A piece of work. The next one waits for it, and its time begins when it does."""
        with self.lock:
            self.end = time.monotonic() + self.seconds
            try:
                self.check()
                yield
            finally:
                self.end = math.inf

    def check(self, *_):
        """
        Raises:
            TimeoutError: If the time is over, or all work has been stopped.
        """
        if self.stopped:
            raise TimeoutError("The server is being stopped.")
        if time.monotonic() > self.end:
            raise TimeoutError(f"This took longer than {self.seconds:g} seconds. Take a smaller photograph.")

    def watch(self, model: nn.Module):
        """Lets a model ask before each of its modules."""
        for module in model.modules():
            module.register_forward_pre_hook(self.check)

    def stop(self):
        """Ends all work, now and later."""
        self.stopped = True
