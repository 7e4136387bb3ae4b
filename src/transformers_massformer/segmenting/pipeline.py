"""A pipeline of photographs: threads read ahead and write behind while the model computes in the calling thread."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from ..images import count_pixels
from ..models.photo_headers import quiet_pillow
from ..utils.machine import count_processors, free_memory
from .steps import PHOTO_ERRORS, Outcome


if TYPE_CHECKING:
    from ..inference.segmenter import Segmenter
    from .jobs import Job
    from .steps import Steps


# More threads do not help: they encode the files of a photograph faster than a fast GPU segments it.
MOST_WORKERS = 4
# Bytes that the photographs in a pipeline and what was found in them may take together, and the share of free memory.
# A photograph that takes more passes through alone.
MEMORY_LIMIT, MEMORY_SHARE = 2**30, 0.125


def default_workers(num_processes: int = 1) -> int:
    """Return the number of threads for each of several processes on this machine."""
    return max(1, min(MOST_WORKERS, count_processors() // num_processes))


class Passage(NamedTuple):
    """
    A photograph on its way through a pipeline.

    Attributes:
        job ([`Job`]): The photograph and its files.
        pixels (`int`): Its size.
        future (`Future`): The [`Loaded`] photograph, and once it was segmented the [`Outcome`].
    """

    job: Job
    pixels: int
    future: Future[Any]


class CallingThread(Executor):
    """Executes at once, in the thread that submits."""

    def submit(self, function, /, *arguments, **options):
        future: Future = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


class Pipeline:
    """
    Takes photographs through [`Steps`] around a segmenter, several at a time: while the model computes one of them in
    the calling thread, other threads read the next ones and write the files of the ones before. Files, outcomes and
    their order are those of one photograph after the other.

    Args:
        steps ([`Steps`]): How photographs are read and their files are written.
        segmenter ([`Segmenter`]): The model.
        workers (`int`): Number of threads; 0 takes one photograph after the other, in the calling thread.

    Attributes:
        memory (`int`): Bytes for photographs, label maps and mattes that are in memory at the same time.
        most (`int`): Number of photographs that are in memory at the same time.
    """

    def __init__(self, steps: Steps, segmenter: Segmenter, workers: int):
        self.steps, self.segmenter = steps, segmenter
        self.pool = ThreadPoolExecutor(workers, "photograph") if workers else CallingThread()
        # The matting library has threads of its own, and does not bear to be called by several.
        self.writers = CallingThread() if steps.extras.edits_colours else self.pool
        self.memory = min(MEMORY_LIMIT, int(free_memory() * MEMORY_SHARE))
        # Beside the one that the model computes, each thread may have one in work and one waiting for it.
        self.most = 1 + 2 * workers
        # A photograph has three bytes per pixel, its label map one, and each matte one.
        self.bytes_per_pixel = 4 + (len(steps.labels) if steps.extras.need_mattes else 0)
        self.waiting: deque[Job] = deque()
        self.ahead: deque[Passage] = deque()
        self.behind: deque[Passage] = deque()
        # A photograph may wait for room many times.
        self.count_pixels = functools.lru_cache(maxsize=1)(count_pixels)

    def run(self, jobs: Iterable[Job], report: Callable[[Outcome], None]):
        """
        Segment photographs and report what became of each, in their order. After Ctrl-C, files that are being written
        are completed and reported, and nothing else is started.

        Args:
            jobs (`Iterable[Job]`): The photographs and their files.
            report (`Callable[[Outcome], None]`): Is called in this thread.
        """
        self.waiting.extend(jobs)
        # Around all threads: each of them silences Pillow and restores what it found.
        with quiet_pillow():
            try:
                self.pump(report)
            except KeyboardInterrupt:
                self.pool.shutdown(cancel_futures=True)
                self.report_ended(report)
                raise
            finally:
                self.pool.shutdown(cancel_futures=True)

    def pump(self, report: Callable[[Outcome], None]):
        """Segment and report until no photograph is left."""
        while self.waiting or self.ahead or self.behind:
            self.read_ahead()
            if self.ahead:
                self.segment_next()
                self.read_ahead()
            if self.behind and not self.ahead:
                # Nothing can be read before the memory of the oldest is free.
                wait([self.behind[0].future])
            self.report_ended(report)

    def read_ahead(self):
        """Start to read the next photographs, as far as there is room for them."""
        while self.waiting:
            inside = [*self.ahead, *self.behind]
            pixels = self.count_pixels(self.waiting[0].photo)
            taken = self.bytes_per_pixel * sum(passage.pixels for passage in inside)
            if inside and (len(inside) >= self.most or taken + self.bytes_per_pixel * pixels > self.memory):
                return
            job = self.waiting.popleft()
            self.ahead.append(Passage(job, pixels, self.pool.submit(self.steps.read, job)))

    def segment_next(self):
        """Segment the oldest of the photographs that were read, and start to write its files."""
        job, pixels, reading = self.ahead.popleft()
        try:
            loaded = reading.result()
            ending = self.writers.submit(self.steps.finish, loaded, self.segmenter(loaded.photo))
        except PHOTO_ERRORS as error:
            ending = Future()
            ending.set_result(Outcome.failed(job, error))
        self.behind.append(Passage(job, pixels, ending))

    def report_ended(self, report: Callable[[Outcome], None]):
        """Report the oldest photographs, as far as they are finished."""
        while self.behind and self.behind[0].future.done() and not self.behind[0].future.cancelled():
            outcome = self.behind[0].future.result()
            self.behind.popleft()
            report(outcome)
