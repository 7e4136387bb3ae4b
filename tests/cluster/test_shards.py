"""Results as Parquet files: what they hold, and what is made again."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pycocotools.mask
import pytest

from transformers_massformer.cluster import shards as module
from transformers_massformer.cluster.destinations import Rows
from transformers_massformer.cluster.shards import Shards, make_row
from transformers_massformer.cluster.storage import Folder
from transformers_massformer.segmenting.jobs import Extras, Job, Remote


LABELS = ["others", "sky", "water"]
SETTINGS = {"model": [["config.json", "1"]], "tile": None}


@pytest.fixture(params=["", "file://"])
def output(request, tmp_path):
    return f"{request.param}{tmp_path}/out"


@pytest.fixture
def jobs(tmp_path):
    """Return jobs of two photographs here and one elsewhere."""
    photos = [tmp_path / "a.png", tmp_path / "b.png"]
    for photo in photos:
        photo.write_text(photo.name)
    remote = Remote("s3://bucket", "bucket/c.png", "12-1")
    return [Job(photo, Path(photo.name)) for photo in photos] + [Job(Path("c.png"), Path("c.png"), remote=remote)]


def label_map(index):
    return np.random.default_rng(index).choice([0, 2, 255], size=(5, 7)).astype(np.uint8)


def row(job, index=0):
    return make_row(job, label_map(index), LABELS, "m", 0.5, job.origin(SETTINGS).describe())


def writer(output, settings=SETTINGS):
    shards = Shards(Folder(output), settings)
    shards.labels = LABELS
    return shards


def write(output, jobs):
    shards = writer(output)
    for index, job in enumerate(jobs):
        shards.add(row(job, index))
    shards.flush()


def rows(output):
    """Read the rows of all files as any reader of Parquet does."""
    folder = output.removeprefix("file://")
    return pyarrow.parquet.read_table(folder).to_pylist() if Path(folder).exists() else []


def standings(output, jobs, settings=SETTINGS, overwrite=False):
    return [each.reason or each.is_finished for each in Shards(Folder(output), settings).prepare(jobs, overwrite)]


def test_rows_hold_the_label_maps(output, jobs):
    write(output, jobs)
    found = rows(output)
    assert [each["path"] for each in found] == [str(jobs[0].photo), str(jobs[1].photo), "s3://bucket/c.png"]
    for index, each in enumerate(found):
        assert (each["width"], each["height"], each["model"], each["seconds"]) == (7, 5, "m", 0.5)
        read = np.full((5, 7), 255, np.uint8)
        for annotation in each["annotations"]:
            mask = pycocotools.mask.decode(annotation["segmentation"]).astype(bool)
            assert mask.sum() == annotation["area"]
            assert annotation["category"] == LABELS[annotation["category_id"]]
            read[mask] = annotation["category_id"]
        np.testing.assert_array_equal(read, label_map(index))
    (file,) = Path(output.removeprefix("file://")).iterdir()
    stored = json.loads(pyarrow.parquet.read_schema(file).metadata[b"massformer"])
    assert stored == {"labels": LABELS, "settings": SETTINGS}


def test_what_is_finished_and_what_has_changed(output, jobs, tmp_path):
    assert standings(output, jobs) == [False, False, False]
    write(output, jobs)
    assert standings(output, jobs) == [True, True, True]
    (tmp_path / "b.png").write_text("another")
    moved = [*jobs[:2], Job(Path("c.png"), Path("c.png"), remote=Remote("s3://bucket", "bucket/c.png", "12-2"))]
    assert standings(output, moved) == [True, "another photo", "another photo"]
    # Their rows are gone, and the others are not.
    assert [each["path"] for each in rows(output)] == [str(jobs[0].photo)]
    write(output, moved[1:])
    assert standings(output, moved) == [True, True, True]
    assert len(rows(output)) == 3


def test_another_model_is_refused_or_removed(output, jobs):
    write(output, jobs)
    with pytest.raises(ValueError, match=r"was made otherwise \(different tile\).*--overwrite"):
        standings(output, jobs, {**SETTINGS, "tile": [64, 8]})
    assert len(rows(output)) == 3
    # Of the same model, rows of these photographs alone.
    assert standings(output, jobs[:1], overwrite=True) == [False]
    assert [each["path"] for each in rows(output)] == [each.name for each in jobs[1:]]
    assert standings(output, jobs[:1], {**SETTINGS, "tile": [64, 8]}, overwrite=True) == [False]
    assert rows(output) == []


def test_rows_of_two_runs_at_once_are_reduced_to_one(output, jobs):
    write(output, jobs)
    write(output, jobs[1:])
    assert standings(output, jobs) == [True, True, True]
    assert sorted(each["path"] for each in rows(output)) == sorted(job.name for job in jobs)


def test_files_of_others_are_refused(output, jobs):
    folder = Path(output.removeprefix("file://"))
    folder.mkdir()
    pyarrow.parquet.write_table(pa.table({"path": ["a"]}), folder / "x.parquet")
    with pytest.raises(ValueError, match="x.parquet was not written by massformer segment"):
        standings(output, jobs, overwrite=True)
    (folder / "x.parquet").write_text("no table")
    with pytest.raises(ValueError, match="x.parquet was not written by massformer segment"):
        standings(output, jobs)


def test_full_files_and_files_that_have_waited_are_written(output, jobs, monkeypatch):
    monkeypatch.setattr(module, "MAX_ROWS", 2)
    shards = writer(output)
    for count, job in zip((0, 2, 2), jobs, strict=True):
        shards.add(row(job))
        assert len(rows(output)) == count
    monkeypatch.setattr(module, "MAX_SECONDS", -1.0)
    shards.add({**row(jobs[0]), "path": "x"})
    assert len(rows(output)) == 4
    shards.flush()
    assert len(Folder(output).names(".parquet")) == 2


def test_a_file_that_cannot_be_written_leaves_nothing(output, jobs, monkeypatch):
    shards = writer(output)
    shards.add(row(jobs[0]))

    def fail(table, path, **options):
        Path(path).write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(pyarrow.parquet, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        shards.flush()
    folder = Path(output.removeprefix("file://"))
    assert not folder.exists() or not any(folder.iterdir())


def test_tables_of_failures(output):
    rows = Rows(output, Extras(), SETTINGS)
    rows.check_failures()
    rows.write_failures([("s3://b/a.jpg", 'is "damaged", cut off'), ("b.jpg", "x")])
    file = Path(output.removeprefix("file://")) / "failures.csv"
    assert file.read_text().splitlines() == ["path,error", 's3://b/a.jpg,"is ""damaged"", cut off"', "b.jpg,x"]
    rows.check_failures()
    rows.write_failures([])
    assert not file.exists()
    file.write_text("name,reason\nmine,mine\n")
    with pytest.raises(ValueError, match="not a table of failures.*Rename it"):
        rows.check_failures()
