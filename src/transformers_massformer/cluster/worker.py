"""What each process of a cluster does: load the model, then take photographs one after the other through all steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..segmenting.jobs import Extras, Job, job_standing
from ..segmenting.steps import PHOTO_ERRORS, Outcome, Steps
from .parquet_rows import Column
from .photographs import Fetcher
from .shards import make_row


if TYPE_CHECKING:
    from ..inference.predictor import Predictor


@dataclass(frozen=True)
class Answer:
    """
    What became of a photograph.

    Attributes:
        outcome ([`Outcome`]): As text.
        row (`dict`, *optional*): Its row for a Parquet file.
    """

    outcome: Outcome
    row: dict[str, Any] | None = None


@dataclass(frozen=True)
class Task:
    """
    What all photographs of a job have in common; it is sent to each process.

    Args:
        load (`Callable[[], tuple[Predictor, dict]]`): Loads the model, and describes the prediction as it is there.
        model (`str`): Name of the model.
        prediction (`Mapping[str, Any]`): Settings of the prediction, see [`prediction_settings`].
        extras ([`Extras`]): Pictures to write beside the label maps.
        output (`Path`, *optional*): Folder for files, which all machines share; without it, rows are returned.
        column ([`Column`], *optional*): Column of images in Parquet files.
        overwrite (`bool`): Whether to make results again that are finished.
        max_megapixels (`float`, *optional*): See [`accept_photos`].
        allow_truncated (`bool`): See [`accept_photos`].
    """

    load: Callable[[], tuple[Predictor, dict[str, Any]]]
    model: str
    prediction: Mapping[str, Any]
    extras: Extras
    output: Path | None
    column: Column | None
    overwrite: bool
    max_megapixels: float | None
    allow_truncated: bool

    def start(self) -> PhotoWorker:
        """
        Load the model.

        Raises:
            ValueError: If this machine has another model or version of the package than the one that sent the task.
        """
        from ..images import accept_photos
        from ..utils.resuming import Results

        accept_photos(self.max_megapixels, self.allow_truncated)
        predictor, prediction = self.load()
        different = [name for name in prediction if prediction[name] != self.prediction.get(name)]
        if different:
            raise ValueError(
                f"{self.model} differs from that of the machine that started the job (different "
                f"{', '.join(different)}). Put the same model, and version of this package, on all machines."
            )
        if self.output is not None and not self.output.is_dir():
            raise ValueError(
                f"There is no folder {self.output}. Choose an --output that all machines share, or --format parquet, "
                "which only the machine that started the job writes."
            )
        segmenter = self.extras.segmenter(predictor)
        steps = Steps.around(segmenter, Results(self.output or Path()), self.extras, self.prediction)
        return PhotoWorker(self, segmenter, steps)


@dataclass
class PhotoWorker:
    """
    Segments photographs in a process of a cluster.

    Args:
        task ([`Task`]): What they have in common.
        segmenter ([`Segmenter`]): The model.
        steps ([`Steps`]): What stands before and after it.
    """

    task: Task
    segmenter: Any
    steps: Steps
    fetcher: Fetcher = field(init=False)

    def __post_init__(self):
        self.fetcher = Fetcher(self.task.column)

    def __call__(self, job: Job) -> Answer:
        """Segment a photograph; what goes wrong with it is part of the answer."""
        try:
            if self.is_finished(job):
                return Answer(Outcome(job, f"{job.name} -> {job.label_map}: finished by another process"))
            with self.fetcher.fetched(job) as file:
                try:
                    return self.segment(job, file)
                except PHOTO_ERRORS as error:
                    # Errors name the copy, which is gone when they are read.
                    failed = Outcome.failed(job, error)
                    return Answer(replace(failed, error=failed.error.replace(str(file), job.name)))
        except PHOTO_ERRORS as error:
            return Answer(Outcome.failed(job, error))

    def segment(self, job: Job, file: Path) -> Answer:
        """Segment a photograph, and write its files or return its row."""
        loaded = self.steps.read(job, file)
        found = self.segmenter(loaded.photo)
        if self.task.output is not None:
            return Answer(self.steps.write(loaded, found))
        (made_from,) = loaded.made_from.values()
        row = make_row(job, found.label_map, self.steps.labels, self.task.model, found.seconds, made_from)
        return Answer(Outcome(job, self.steps.report(loaded, found)), row)

    def is_finished(self, job: Job) -> bool:
        """Tell whether another process has written a photograph's files, and perhaps died before it could say so."""
        if self.task.output is None or self.task.overwrite:
            return False
        return job_standing(self.steps.results, self.steps.extras.origins(job, self.task.prediction)).is_finished
