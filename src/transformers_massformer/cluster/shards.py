"""Results as Parquet files: a row per photograph, with a run-length encoded mask per class."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..segmenting.jobs import Job
from ..utils.fingerprint import differing
from ..utils.resuming import Standing
from .storage import Folder


SUFFIX = ".parquet"
# Key of a file's metadata with the classes and the settings of the prediction.
METADATA = b"massformer"
# A file is written when it has this many rows, or the first of them has waited this many seconds.
MAX_ROWS, MAX_SECONDS = 512, 300.0


def schema() -> Any:
    """Return the columns (`pyarrow.Schema`). `annotations` are those of COCO, which pycocotools decodes."""
    import pyarrow as pa

    mask = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
    annotation = pa.struct(
        [("category_id", pa.int32()), ("category", pa.string()), ("area", pa.int64()), ("segmentation", mask)]
    )
    return pa.schema(
        [
            ("path", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("annotations", pa.list_(annotation)),
            ("model", pa.string()),
            ("seconds", pa.float32()),
            ("made_from", pa.string()),
        ]
    )


def make_row(
    job: Job, label_map: Any, labels: Sequence[str], model: str, seconds: float, made_from: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Return the row of a photograph.

    Args:
        job ([`Job`]): The photograph.
        label_map (`np.ndarray` of shape `(height, width)`): uint8 class ids.
        labels (`Sequence[str]`): The model's classes.
        model (`str`): Name of the model.
        seconds (`float`): Time of the prediction.
        made_from (`Mapping[str, Any]`): From [`Origin.describe`].

    Raises:
        ValueError: If the label map has ids without a class.
    """
    from ..data.annotations import coco_annotation

    found = coco_annotation(label_map, labels, job.photo.name)
    annotations = [
        {
            "category_id": each["category_id"],
            "category": labels[each["category_id"]],
            "area": each["area"],
            "segmentation": each["segmentation"],
        }
        for each in found["annotations"]
    ]
    height, width = label_map.shape
    return {
        "path": job.name,
        "width": width,
        "height": height,
        "annotations": annotations,
        "model": model,
        "seconds": seconds,
        "made_from": photo_state(made_from),
    }


def photo_state(made_from: Mapping[str, Any]) -> str:
    """Return the part of a description that belongs to the photograph, as JSON."""
    return json.dumps({"files": made_from["files"], "photo": made_from["settings"].get("photo")})


class Shards:
    """
    A folder of Parquet files, each complete or absent, that several runs add to.

    Args:
        folder ([`Folder`]): The folder.
        settings (`Mapping[str, Any]`): Settings of the prediction, see [`prediction_settings`].
    """

    def __init__(self, folder: Folder, settings: Mapping[str, Any]):
        self.folder, self.settings, self.run = folder, json.loads(json.dumps(settings)), secrets.token_hex(4)
        # The model's classes, once they are known.
        self.labels: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.count, self.since = 0, 0.0

    def metadata(self, name: str) -> dict[str, Any]:
        """
        Return what a file says that it was made from.

        Raises:
            ValueError: If it is not such a file.
        """
        import pyarrow.parquet

        with self.folder.storage.open_input_file(self.folder.path(name)) as file:
            try:
                stored = (pyarrow.parquet.read_schema(file).metadata or {}).get(METADATA)
                return dict(json.loads(stored or "null"))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{self.folder.path(name)} was not written by massformer segment. Choose another --output."
                ) from error

    def read(self, name: str, columns: list[str] | None = None) -> Any:
        """Return the rows of a file as a `pyarrow.Table`."""
        import pyarrow.parquet

        with self.folder.storage.open_input_file(self.folder.path(name)) as file:
            return pyarrow.parquet.read_table(file, columns=columns)

    def prepare(self, jobs: Sequence[Job], overwrite: bool) -> list[Standing]:
        """
        Compare the files with the jobs, and remove rows that are about to be made again.

        Args:
            jobs (`Sequence[Job]`): The photographs.
            overwrite (`bool`): Whether to make all of them again, and to remove files of another model or options.

        Returns:
            `list[Standing]`: What is known of the row of each.

        Raises:
            ValueError: If the folder has files of another model or other options, or of unknown origin.
        """
        by_name = {job.name: job for job in jobs}
        standings: dict[str, Standing] = {}
        for name in self.folder.names(SUFFIX):
            different = differing(self.metadata(name).get("settings", {}), self.settings)
            if different and not overwrite:
                raise ValueError(
                    f"{self.folder.path(name)} was made otherwise (different {', '.join(different)}). Choose another "
                    "--output, or pass --overwrite to remove such files."
                )
            if different:
                self.folder.remove(name)
                continue
            outdated = set()
            for path, made_from in zip(*self.read(name, ["path", "made_from"]).to_pydict().values(), strict=True):
                # A second row for a photograph is left from two runs at once.
                if path in by_name and (overwrite or standings.get(path, Standing()).is_finished):
                    outdated.add(path)
                elif path in by_name:
                    is_current = self.is_current(by_name[path], json.loads(made_from))
                    standings[path] = Standing(is_current, reason="" if is_current else "another photo")
                    outdated |= set() if is_current else {path}
            if outdated:
                self.drop(name, outdated)
        return [standings.get(job.name, Standing()) for job in jobs]

    def is_current(self, job: Job, made_from: Mapping[str, Any]) -> bool:
        """Tell whether a row was made from the photograph as it is now."""
        settings = {} if made_from["photo"] is None else {"photo": made_from["photo"]}
        return not job.origin({}).differences({"files": made_from["files"], "settings": settings})

    def drop(self, name: str, paths: set[str]):
        """Rewrite a file without the rows of some photographs."""
        import pyarrow as pa

        table = self.read(name)
        kept = table.filter(pa.array([path not in paths for path in table["path"].to_pylist()], pa.bool_()))
        if kept.num_rows:
            self.write(kept, name)
        else:
            self.folder.remove(name)

    def add(self, row: Mapping[str, Any]):
        """Add a row; a file is written when it is full, or has waited."""
        self.since = self.since if self.rows else time.monotonic()
        self.rows.append(dict(row))
        if len(self.rows) >= MAX_ROWS or time.monotonic() - self.since > MAX_SECONDS:
            self.flush()

    def flush(self):
        """Write a file with the rows that have been added since the last one."""
        import pyarrow as pa

        if self.rows:
            described = {"labels": self.labels, "settings": self.settings}
            table = pa.Table.from_pylist(
                self.rows, schema=schema().with_metadata({METADATA: json.dumps(described).encode()})
            )
            self.write(table, f"labels-{self.run}-{self.count:05d}{SUFFIX}")
            self.rows, self.count = [], self.count + 1

    def write(self, table: Any, name: str):
        """Write a file, which appears complete."""
        import pyarrow.parquet

        with self.folder.writing(name) as partial:
            pyarrow.parquet.write_table(table, partial, compression="zstd")
