"""The steps from a photograph to its files: read it, segment it, write what was found."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.fingerprint import file_state
from .jobs import Job, Loaded, outdated_pictures


if TYPE_CHECKING:
    from ..inference.segmenter import Segmentation, Segmenter
    from ..utils.resuming import Results
    from .jobs import Extras


# Errors that belong to one photograph; the next ones are segmented nevertheless.
PHOTO_ERRORS = (OSError, ValueError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class Outcome:
    """
    What became of a job, as text.

    Attributes:
        job ([`Job`]): The job.
        line (`str`): A line of report; empty after an error.
        error (`str`): What went wrong; empty if all files were written.
    """

    job: Job
    line: str = ""
    error: str = ""

    @classmethod
    def failed(cls, job: Job, error: BaseException) -> Outcome:
        """Return the outcome of a job that raised an error."""
        return cls(job, error=str(error) or type(error).__name__)


@dataclass(frozen=True)
class Steps:
    """
    Reads photographs and writes their files; the model stands between the two. Each step may run in a thread or a
    process of its own.

    Args:
        results ([`Results`]): Records of the output folder.
        extras ([`Extras`]): Pictures to write beside the label maps.
        prediction (`Mapping[str, Any]`): Settings of the prediction, see [`prediction_settings`].
        labels (`list[str]`): The model's classes.
        num_semantic_labels (`int`): Classes of the backbone's semantic maps, 0 without any.
        machinery (`str`): Device and type of the computation, for reports.
    """

    results: Results
    extras: Extras
    prediction: Mapping[str, Any]
    labels: list[str]
    num_semantic_labels: int
    machinery: str

    @classmethod
    def around(cls, segmenter: Segmenter, results: Results, extras: Extras, prediction: Mapping[str, Any]) -> Steps:
        """Return the steps before and after a segmenter."""
        machinery = f"{segmenter.device}, {str(segmenter.dtype).removeprefix('torch.')}"
        num_semantic_labels = segmenter.predictor.num_semantic_labels or 0
        return cls(results, extras, prediction, segmenter.labels, num_semantic_labels, machinery)

    def read(self, job: Job, file: Path | None = None) -> Loaded:
        """
        Read a job's photograph.

        Args:
            job ([`Job`]): The job.
            file (`Path`, *optional*): A copy of its photograph, if that is elsewhere.

        Raises:
            OSError: If it cannot be opened.
            ValueError: If it cannot be decoded.
            MemoryError: If it does not fit into memory.
        """
        from ..images import open_image

        # First the fingerprint, once for all files: a photograph that changes in between is then made again.
        state_of = functools.cache(file_state)
        origins = self.extras.origins(job, self.prediction)
        made_from = {path: origin.describe(state_of) for path, origin in origins.items()}
        return Loaded(job, open_image(file or job.photo), made_from)

    def write(self, loaded: Loaded, found: Segmentation) -> Outcome:
        """
        Write all files of a photograph with their records, or none of them.

        Raises:
            OSError: If a file cannot be written.
            ValueError: If a format cannot hold the label map.
            MemoryError: If a picture does not fit into memory.
        """
        from .pictures import write_files

        job = loaded.job
        with self.results.writing(loaded.made_from, job.folders) as partials:
            remark = write_files(loaded, found, partials, self.extras, self.labels, self.num_semantic_labels)
        outdated = ", ".join(path.name for path in outdated_pictures(self.results, job, self.prediction))
        not_renewed = f"not renewed: {outdated}, made otherwise by an earlier run" if outdated else ""
        return Outcome(job, "; ".join(filter(None, (self.report(loaded, found), remark, not_renewed))))

    def report(self, loaded: Loaded, found: Segmentation) -> str:
        """Describe a photograph's size, and the time and memory that segmenting it took."""
        from ..utils.text import format_bytes

        job, photo = loaded.job, loaded.photo
        return (
            f"{job.name} -> {job.label_map}: {photo.width} x {photo.height}, {self.machinery}, "
            f"{found.seconds:.1f} s, peak memory {format_bytes(found.peak_bytes)}"
        )

    def finish(self, loaded: Loaded, found: Segmentation) -> Outcome:
        """Write as [`Steps.write`] does; what goes wrong is part of the outcome."""
        try:
            return self.write(loaded, found)
        except PHOTO_ERRORS as error:
            return Outcome.failed(loaded.job, error)
