"""What a process of a cluster does with photographs, here in this process."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from support import ROOT

from transformers_massformer.cli.cluster import load_there, portable_name
from transformers_massformer.cli.options import DType
from transformers_massformer.cluster.worker import Task
from transformers_massformer.inference.predictor import PredictionOptions
from transformers_massformer.segmenting.jobs import Extras, Job, Remote


@pytest.fixture
def task(peers, tmp_path):
    model = peers("massformer")

    def load():
        return load_there(portable_name(str(model)), DType.float32, PredictionOptions(), "cpu")

    (tmp_path / "out").mkdir()
    return Task(load, "tiny", load()[1], Extras(), tmp_path / "out", None, False, None, False)


@pytest.fixture
def job(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    return Job(tmp_path / "a.png", tmp_path / "out" / "a.png")


def test_another_model_on_a_machine_ends_the_job(task):
    other = replace(task, prediction={**task.prediction, "model": [["config.json", "1"]]})
    with pytest.raises(ValueError, match=r"tiny differs from .*\(different model\). Put the same model"):
        other.start()


def test_a_folder_that_machines_do_not_share_ends_the_job(task, tmp_path):
    with pytest.raises(
        ValueError, match=r"There is no folder .*elsewhere. Choose an --output that all machines share"
    ):
        replace(task, output=tmp_path / "elsewhere").start()


def test_finished_photographs_are_not_segmented_again(task, job):
    work = task.start()
    assert "20, cpu" in work(job).outcome.line
    written = job.label_map.stat().st_ino
    assert "finished by another process" in work(job).outcome.line
    assert job.label_map.stat().st_ino == written
    assert "cpu" in replace(task, overwrite=True).start()(job).outcome.line
    assert job.label_map.stat().st_ino != written


def test_rows_equal_files(task, job):
    task.start()(job)
    row = replace(task, output=None).start()(job).row
    assert (row["path"], row["width"], row["height"], row["model"]) == (str(job.photo), 30, 20, "tiny")
    values, counts = np.unique(np.asarray(PIL.Image.open(job.label_map)), return_counts=True)
    assert {each["category_id"]: each["area"] for each in row["annotations"]} == dict(
        zip(values.tolist(), counts.tolist(), strict=True)
    )


def test_errors_name_the_address(task, job, tmp_path):
    (tmp_path / "b.png").write_text("no photograph")
    for name, words in (("b.png", "is not an image file"), ("c.png", "")):
        remote = Remote(f"file://{tmp_path}", f"{tmp_path}/{name}", "1-1")
        answer = task.start()(replace(job, photo=Path(str(remote)), remote=remote))
        assert f"{tmp_path}/{name}" in answer.outcome.error
        assert words in answer.outcome.error
        assert "massformer-" not in answer.outcome.error
        assert not job.label_map.exists()


def test_names_of_models_hold_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert portable_name("model") == str(tmp_path / "model")
    assert portable_name("owner/name") == "owner/name"
    assert portable_name(str(ROOT / "hub" / "massformer-photo")) == "massformer-photo"
