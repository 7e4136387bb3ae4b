"""
Segmentation on a cluster of Ray with two processes, on this machine: nothing is lost or done twice when one is killed,
and results equal those of a single process.
"""

import contextlib
import csv
import filecmp
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np
import PIL.Image
import psutil
import pyarrow as pa
import pyarrow.parquet
import pycocotools.mask
import pytest
import torch
from support.commands import run, run_until

from transformers_massformer.cluster import pool
from transformers_massformer.cluster.connection import Resources, connected
from transformers_massformer.utils.resuming import RESULTS_FOLDER


ray = pytest.importorskip("ray")
TWO = ("--num-actors", "2", "--cpus-per-actor", "1")


@pytest.fixture(scope="session", autouse=True)
def busy_machine():
    """Give processes of Ray as much of a busy machine as other tests have; by default they are nice."""
    with mock.patch.dict(os.environ, {"RAY_worker_niceness": "0"}):
        yield


@pytest.fixture(scope="session")
def cluster():
    """Start Ray once and return its address."""
    with connected("local"):
        yield ray.get_runtime_context().gcs_address


@pytest.fixture
def model(peers):
    return peers("massformer")


@pytest.fixture
def photos(tmp_path):
    """Write twelve photographs, one of them broken."""
    generator = np.random.default_rng(0)
    for index in range(12):
        path = tmp_path / "photos" / ("sub" if index % 3 else "") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (60 + index, 80, 3), np.uint8)
        PIL.Image.fromarray(pixels).resize((300, 200 + index), PIL.Image.Resampling.BICUBIC).save(path)
    (tmp_path / "photos" / "0.png").write_bytes(b"no photograph")
    return tmp_path / "photos"


def workers() -> list[psutil.Process]:
    """Return the processes of this test's cluster that segment, whether or not they have loaded the model."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "".join(process.cmdline()[:1]).startswith("ray::MapWorker"):
                found.append(process)
    return found


def kill_one(when, killed: list[int]):
    """Kill one of the processes once something has happened."""
    deadline = time.monotonic() + 100
    while not when() and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in workers()[:1]:
        process.send_signal(signal.SIGKILL)
        killed.append(process.pid)


def made_files(folder: Path) -> list[Path]:
    """Return the files in a folder of results, without records."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path.parts[0] != RESULTS_FOLDER)


def origins(folder: Path) -> dict[str, list]:
    """Return what records say that results were made from."""
    found: dict[str, list] = {}
    for path in sorted((folder / RESULTS_FOLDER).iterdir()):
        record = json.loads(path.read_text())
        found.setdefault(record["result"], []).append(record["made_from"])
    return found


def failures(folder: Path) -> dict[str, str]:
    with (folder / "failures.csv").open(newline="") as file:
        return {row["path"]: row["error"] for row in csv.DictReader(file)}


def test_each_item_has_one_result_though_a_process_dies(cluster, tmp_path, monkeypatch):
    # A block of several items is tried again as a whole.
    monkeypatch.setattr(pool, "MAX_BLOCKS", 3)
    tried = tmp_path / "tried"

    def start():
        def work(item):
            if item == 7 and not tried.exists():
                tried.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return item * item, torch.get_num_threads()

        return work

    found = list(pool.run_in_pool(start, range(10), Resources(2, 1, 0)))
    assert tried.exists()
    assert sorted(index for index, _ in found) == list(range(10))
    assert dict(found) == {index: (index * index, 1) for index in range(10)}


def test_what_is_wrong_with_all_items_ends_the_job(cluster):
    def start():
        raise ValueError("no such model")

    with pytest.raises(pool.Broken, match="ValueError on .*: no such model"):
        list(pool.run_in_pool(start, range(3), Resources(1, 1, 0)))


def test_a_killed_process_and_results_of_a_single_one(cluster, model, photos, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    arguments = ("segment", photos, "--model", model, "--overlay", "--output")
    run(*arguments, alone, "--device", "cpu", code=1)
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(lambda: list(shared.rglob("[0-9]*.png")), killed))
    killer.start()
    result = run(*arguments, shared, "--ray", "local", *TWO, code=1)
    killer.join()
    assert killed
    assert "11 segmented, 1 failed" in result.output
    lines = [line for line in result.output.splitlines() if " -> " in line]
    assert len(lines) == len({line.partition(" -> ")[0] for line in lines}) == 11
    files = made_files(alone)
    assert len(files) == 23
    assert made_files(shared) == sorted([*files, Path("failures.csv")])
    assert filecmp.cmpfiles(alone, shared, files, shallow=False) == (files, [], [])
    assert origins(shared) == origins(alone)
    ((failed, error),) = failures(shared).items()
    assert failed == str(photos / "0.png")
    assert "is not an image file that Pillow can read" in error

    # Either finds what the other has finished; only the photograph that failed is tried again.
    shutil.copy(photos / "sub" / "1.png", photos / "0.png")
    for folder in (alone, shared):
        again = run(*arguments, folder, "--device", "cpu").output
        assert "11 of 12 are finished already" in again
        assert "1 segmented, 0 failed" in again
        assert "12 of 12 are finished already" in run(*arguments, folder, "--ray", "local").output
    # The table of failures is gone, too.
    assert made_files(shared) == made_files(alone)
    (shared / "failures.csv").write_text("my,own\n")
    assert "is not a table of failures" in run(*arguments, shared, "--ray", "local", code=1).stderr


def test_rows_in_and_out(cluster, model, photos, tmp_path):
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))[:6]
    broken = f"file://{photos}/{names.pop(0)}"
    images = [{"bytes": (photos / name).read_bytes(), "path": name} for name in names]
    pyarrow.parquet.write_table(pa.table({"image": images}), tmp_path / "in.parquet")
    output, address = tmp_path / "out", f"file://{tmp_path}/in.parquet"
    arguments = ["--model", model, "--output", f"file://{output}", "--ray", "local", "--format", "parquet"]
    result = run("segment", address, broken, *arguments, *TWO, code=1)
    assert "5 segmented, 1 failed" in result.output
    ((failed, error),) = failures(output).items()
    assert failed == broken
    assert error.startswith(f"{broken} is not an image file")

    run("segment", photos, "--model", model, "--output", tmp_path / "alone", "--device", "cpu", code=1)
    rows = [row for file in output.glob("*.parquet") for row in pyarrow.parquet.read_table(file).to_pylist()]
    assert len(rows) == 5
    for row in rows:
        label_map = np.full((row["height"], row["width"]), 255, np.uint8)
        for annotation in row["annotations"]:
            label_map[pycocotools.mask.decode(annotation["segmentation"]) == 1] = annotation["category_id"]
        name = names[int(row["path"].removeprefix(f"{address}#"))]
        np.testing.assert_array_equal(label_map, PIL.Image.open(tmp_path / "alone" / name))
        assert row["model"] == str(model)

    assert "5 of 5 are finished already" in run("segment", address, *arguments).output
    assert not (output / "failures.csv").exists()
    assert "different tile" in run("segment", address, *arguments, "--tile", "64", code=1).stderr


def test_ctrl_c_leaves_nothing_incomplete(cluster, model, photos, tmp_path):
    output = tmp_path / "out"
    command = ("segment", photos, "--model", model, "--output", output, "--overlay", "--ray", cluster)
    code, printed = run_until(lambda: list(output.rglob("[0-9]*.png")), signal.SIGINT, *command)
    assert code == 130, printed
    assert "interrupted. Finished items are kept" in " ".join(printed.split())
    assert "Traceback" not in printed
    # The cluster ends the processes of a job that has ended.
    psutil.wait_procs(workers(), timeout=20)
    assert not workers()
    assert not list(output.rglob("*.partial"))
    made = [path for path in made_files(output) if path.suffix == ".png"]
    assert made
    for path in made:
        PIL.Image.open(output / path).load()
