"""Where the results of a cluster go: files in a folder that all machines share, or rows of Parquet files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..segmenting.checks import record_class_names
from ..segmenting.jobs import Extras, Job, job_standing, plan_jobs
from ..utils.files import remove_left_overs
from ..utils.resuming import Results, Standing
from ..utils.tables import write_table
from .photographs import Photographs
from .shards import Shards
from .storage import Folder, is_remote


FAILURES = "failures.csv"
FAILURE_COLUMNS = ["path", "error"]


class Destination(ABC):
    """
    Results of a job, and a table of the photographs that failed.

    Args:
        output (`str`): Path or URI of the folder.
        extras ([`Extras`]): Pictures to write beside the label maps.
        prediction (`Mapping[str, Any]`): Settings of the prediction, see [`prediction_settings`].
    """

    # The folder that each process writes to; without it, processes return rows.
    shared: Path | None = None
    # Where rows are added.
    shards: Shards | None = None

    def __init__(self, output: str, extras: Extras, prediction: Mapping[str, Any]):
        self.folder, self.extras, self.prediction = Folder(output), extras, prediction

    @abstractmethod
    def plan(self, found: Photographs) -> list[Job]:
        """
        Return a job for each photograph.

        Raises:
            ValueError: If two photographs share an output, or the folder has a table that is not of this kind.
        """

    @abstractmethod
    def standings(self, jobs: Sequence[Job], overwrite: bool) -> list[Standing]:
        """Compare results that are there with the jobs."""

    @abstractmethod
    def start(self, labels: Sequence[str], jobs: Sequence[Job]) -> str:
        """Prepare for results with these classes and return a remark."""

    @abstractmethod
    def finish(self):
        """Complete what has been added, and remove what processes that ended have left."""

    def check_failures(self):
        """Refuse to replace a table that is not one of failures."""
        header = (self.folder.read(FAILURES) or ",".join(FAILURE_COLUMNS).encode()).splitlines()[:1]
        if header != [",".join(FAILURE_COLUMNS).encode()]:
            raise ValueError(
                f"{self.folder.path(FAILURES)} is not a table of failures, and would be replaced by one. Rename it."
            )

    def write_failures(self, failures: Sequence[tuple[str, str]]):
        """Write the address and the error of each photograph that failed, or remove the table of an earlier run."""
        if not failures:
            self.folder.remove(FAILURES)
            return
        rows = [dict(zip(FAILURE_COLUMNS, failure, strict=True)) for failure in failures]
        with self.folder.writing(FAILURES) as partial:
            write_table(partial, FAILURE_COLUMNS, rows)


class Files(Destination):
    """Files with records, exactly as a single process writes them."""

    def __init__(self, output: str, extras: Extras, prediction: Mapping[str, Any]):
        if is_remote(output):
            raise ValueError(
                f"{output}: label maps as files need a folder that all machines share. Choose one, or pass "
                "--format parquet."
            )
        # Processes have working folders of their own.
        self.root = self.shared = Path(output).absolute()
        super().__init__(str(self.root), extras, prediction)
        self.root.mkdir(parents=True, exist_ok=True)
        self.results, self.folders = Results(self.root), set[Path]()

    def plan(self, found: Photographs) -> list[Job]:
        self.check_failures()
        return plan_jobs(found.photos, self.root, self.extras, found.remotes)

    def standings(self, jobs: Sequence[Job], overwrite: bool) -> list[Standing]:
        return [job_standing(self.results, self.extras.origins(job, self.prediction)) for job in jobs]

    def start(self, labels: Sequence[str], jobs: Sequence[Job]) -> str:
        self.folders = {path.parent for job in jobs for path in job.outputs}
        return record_class_names(self.root, list(labels), self.results, jobs)

    def finish(self):
        for folder in self.folders:
            remove_left_overs(folder)


class Rows(Destination):
    """Parquet files, which this process alone writes."""

    def __init__(self, output: str, extras: Extras, prediction: Mapping[str, Any]):
        super().__init__(output, extras, prediction)
        self.rows = self.shards = Shards(self.folder, prediction)

    def plan(self, found: Photographs) -> list[Job]:
        self.check_failures()
        return [Job(photo, Path(self.folder.root), remote=found.remotes.get(photo)) for photo, _ in found.photos]

    def standings(self, jobs: Sequence[Job], overwrite: bool) -> list[Standing]:
        return self.rows.prepare(jobs, overwrite)

    def start(self, labels: Sequence[str], jobs: Sequence[Job]) -> str:
        self.rows.labels = list(labels)
        return ""

    def finish(self):
        self.rows.flush()
