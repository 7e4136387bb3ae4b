"""Test that photographs in a pipeline give the files, the reports and the errors of one after the other."""

import errno
import os
import threading
import time
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch

from transformers_massformer.inference.segmenter import Segmentation
from transformers_massformer.segmenting import pictures, pipeline
from transformers_massformer.segmenting.jobs import Extras, job_standing, plan_jobs
from transformers_massformer.segmenting.pipeline import Pipeline
from transformers_massformer.segmenting.steps import Steps
from transformers_massformer.utils.resuming import Results


LABELS = ["others", "human", "sky"]
SETTINGS = {"model": "a"}


class Stub:
    """A segmenter that finds classes by brightness, and counts the photographs that are in memory meanwhile."""

    labels, device, dtype = LABELS, torch.device("cpu"), torch.float32
    predictor = SimpleNamespace(num_semantic_labels=None)

    def __init__(self, before=lambda size: None):
        self.before, self.sizes, self.threads = before, [], set()

    def __call__(self, photo):
        self.sizes.append(photo.size)
        self.threads.add(threading.current_thread())
        self.before(photo.size)
        values = np.asarray(photo.convert("L"))
        mattes = np.stack([values, 255 - values, values // 2])
        return Segmentation((values // 86).astype(np.uint8), 0.0, 0, mattes=mattes)


@pytest.fixture
def photos(tmp_path):
    """Return the folder of twelve photographs of different widths."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(12):
        noise = PIL.Image.effect_noise((40 + index, 30), 90).convert("RGB")
        noise.save(folder / f"{index:02}.jpg")
    return folder


def start(photos, output, segmenter, workers, **options):
    """Return a pipeline, and the jobs of a folder of photographs."""
    extras = Extras(overlay=True, mattes=True, **options)
    found = [(path, path.relative_to(photos)) for path in sorted(photos.iterdir())]
    jobs = plan_jobs(found, output, extras)
    return Pipeline(Steps.around(segmenter, Results(output), extras, SETTINGS), segmenter, workers), jobs


def segment(photos, output, segmenter, workers, **options):
    """Segment a folder of photographs and return the outcomes."""
    flow, jobs = start(photos, output, segmenter, workers, **options)
    outcomes = []
    flow.run(jobs, outcomes.append)
    return outcomes


def contents(folder):
    """Return the files of a folder besides the records."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".massformer" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def finished(outcomes, output):
    """Return the names of the photographs whose results are recorded as finished."""
    extras = Extras(overlay=True, mattes=True)
    return [
        each.job.photo.name
        for each in outcomes
        if job_standing(Results(output), extras.origins(each.job, SETTINGS)).is_finished
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_files_and_reports_are_those_of_one_after_the_other(photos, tmp_path, workers):
    (photos / "03.jpg").write_bytes(b"no photograph")
    (photos / "07.jpg").unlink()
    (photos / "07.jpg").mkdir()
    plain = segment(photos, tmp_path / "out", Stub(), 0)
    files = contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "plain")
    stub = Stub()
    found = segment(photos, tmp_path / "out", stub, workers)
    assert [each.job.photo.name for each in found] == [f"{index:02}.jpg" for index in range(12)]
    assert found == plain
    assert [bool(each.error) for each in found] == [index in (3, 7) for index in range(12)]
    assert contents(tmp_path / "out") == files
    assert len(files) == 10 * 5
    assert len(finished(found, tmp_path / "out")) == 10
    assert stub.threads == {threading.main_thread()}


def test_the_model_computes_while_threads_read_and_write(photos, tmp_path, monkeypatch):
    """The model returns only when the next photograph was read and the one before was written."""
    events = {name: [threading.Event() for _ in range(12)] for name in ("read", "written")}
    read, write = Steps.read, Steps.write

    def reading(self, job):
        loaded = read(self, job)
        events["read"][int(job.photo.stem)].set()
        return loaded

    def writing(self, loaded, found):
        outcome = write(self, loaded, found)
        events["written"][int(loaded.job.photo.stem)].set()
        return outcome

    monkeypatch.setattr(Steps, "read", reading)
    monkeypatch.setattr(Steps, "write", writing)

    def overlapped(size):
        index = size[0] - 40
        for other in (events["read"][index + 1 : index + 2], events["written"][max(0, index - 1) : index]):
            assert all(each.wait(20) for each in other)

    assert not any(each.error for each in segment(photos, tmp_path / "out", Stub(overlapped), 2))


@pytest.mark.parametrize(("memory", "most"), [(10**9, 5), (45 * 30 * 7, 1), (3 * 45 * 30 * 7, 3)])
def test_few_photographs_are_in_memory(photos, tmp_path, monkeypatch, memory, most):
    inside, seen = set(), []
    read, finish = Steps.read, Steps.finish

    def reading(self, job):
        inside.add(job.photo)
        return read(self, job)

    def finishing(self, loaded, found):
        # Writing is slow here.
        time.sleep(0.01)
        seen.append(len(inside))
        inside.discard(loaded.job.photo)
        return finish(self, loaded, found)

    monkeypatch.setattr(Steps, "read", reading)
    monkeypatch.setattr(Steps, "finish", finishing)
    flow, jobs = start(photos, tmp_path / "out", Stub(), 2)
    flow.memory = memory
    outcomes = []
    flow.run(jobs, outcomes.append)
    assert len(outcomes) == 12
    assert max(seen) == most


def test_a_disk_that_is_full_fails_its_photographs_only(photos, tmp_path, monkeypatch):
    write = pictures.write_png
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def writing(picture, path):
        if path.name.startswith(".05_overlay"):
            path.write_bytes(b"incomplete")
            raise full
        write(picture, path)

    monkeypatch.setattr(pictures, "write_png", writing)
    outcomes = segment(photos, tmp_path / "out", Stub(), 2)
    assert [each.error for each in outcomes if each.error] == [str(full)]
    assert "05.jpg" not in finished(outcomes, tmp_path / "out")
    assert len(finished(outcomes, tmp_path / "out")) == 11
    assert not any("05" in name for name in contents(tmp_path / "out"))


@pytest.mark.parametrize("step", ["read", "write", "model"])
def test_memory_that_is_short_fails_its_photograph_only(photos, tmp_path, monkeypatch, step):
    stub = Stub()
    if step == "model":

        def fail_once(size):
            if size[0] == 44:
                raise MemoryError

        stub.before = fail_once
    else:
        former = getattr(Steps, step)

        def failing(self, first, *more):
            if getattr(first, "job", first).photo.stem == "04":
                raise MemoryError
            return former(self, first, *more)

        monkeypatch.setattr(Steps, step, failing)
    outcomes = segment(photos, tmp_path / "out", stub, 2)
    assert [(each.job.photo.stem, each.error) for each in outcomes if each.error] == [("04", "MemoryError")]
    assert len(finished(outcomes, tmp_path / "out")) == 11


def test_what_no_photograph_causes_ends_the_run(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Steps, "report", lambda self, loaded, found: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        segment(photos, tmp_path / "out", Stub(), 2)
    assert not [each for each in threading.enumerate() if each.name.startswith("photograph")]


def test_a_photograph_that_changes_while_it_waits_is_made_again(photos, tmp_path, monkeypatch):
    waiting = sorted(photos.iterdir())[1:3]
    are_read = {path: threading.Event() for path in waiting}
    read = Steps.read

    def reading(self, job):
        loaded = read(self, job)
        if job.photo in are_read:
            are_read[job.photo].set()
        return loaded

    def change(size):
        if size[0] == 40:
            for path, is_read in are_read.items():
                assert is_read.wait(20)
                PIL.Image.effect_noise((99, 30), 90).convert("RGB").save(path)

    monkeypatch.setattr(Steps, "read", reading)
    outcomes = segment(photos, tmp_path / "out", Stub(change), 2)
    done = finished(outcomes, tmp_path / "out")
    assert {each.job.photo.name for each in outcomes} - {*done} == {path.name for path in waiting}


def test_an_interruption_completes_what_is_being_written(photos, tmp_path, monkeypatch):
    is_writing, go_on = threading.Event(), threading.Event()
    write = Steps.write

    def writing(self, loaded, found):
        if loaded.job.photo.stem == "04":
            is_writing.set()
            assert go_on.wait(20)
        return write(self, loaded, found)

    def interrupt(size):
        if size[0] == 45:
            assert is_writing.wait(20)
            threading.Timer(0.2, go_on.set).start()
            raise KeyboardInterrupt

    monkeypatch.setattr(Steps, "write", writing)
    flow, jobs = start(photos, tmp_path / "out", Stub(interrupt), 2)
    outcomes = []
    with pytest.raises(KeyboardInterrupt):
        flow.run(jobs, outcomes.append)
    assert [each.job.photo.stem for each in outcomes] == ["00", "01", "02", "03", "04"]
    assert len(finished(outcomes, tmp_path / "out")) == 5
    assert len(contents(tmp_path / "out")) == 5 * 5
    assert not [each for each in threading.enumerate() if each.name.startswith("photograph")]


def test_pictures_of_the_matting_library_are_made_in_the_calling_thread(photos, tmp_path, monkeypatch):
    threads, write = set(), Steps.write

    def writing(self, loaded, found):
        threads.add(threading.current_thread())
        return write(self, loaded, found)

    monkeypatch.setattr(Steps, "write", writing)
    monkeypatch.setattr(pictures, "refine_matte", lambda photo, matte: matte)
    assert not any(each.error for each in segment(photos, tmp_path / "out", Stub(), 2, refine=True))
    assert threads == {threading.main_thread()}


def test_the_number_of_threads_suits_the_machine(monkeypatch):
    for processors, processes, expected in ((1, 1, 1), (2, 1, 2), (64, 1, 4), (8, 4, 2), (2, 4, 1)):
        monkeypatch.setattr(pipeline, "count_processors", lambda processors=processors: processors)
        assert pipeline.default_workers(processes) == expected
