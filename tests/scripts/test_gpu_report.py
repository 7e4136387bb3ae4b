"""The report of a GPU machine: its parts on a CPU, and what becomes of failures and of large files."""

import json
import tarfile

import benchmark_report
import benchmark_worker
import gpu_report
import pytest


TRAINING = """
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--work", type=pathlib.Path)
parser.add_argument("--minutes", type=float)
work = parser.parse_args().work
(work / "state").mkdir(parents=True, exist_ok=True)
(work / "state" / "weights").write_bytes(b"w" * 1000)
print("trained")
"""


@pytest.fixture
def training(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(TRAINING)
    monkeypatch.setattr(gpu_report, "TRAINING", script)
    return script


def test_parts_on_the_cpu(training, tmp_path, monkeypatch):
    tiny = [job for job in gpu_report.benchmark_jobs("cpu") if job.section == "deformable"][:1]
    monkeypatch.setattr(gpu_report, "benchmark_jobs", lambda kind: [gpu_report.Job("deformable", tiny[0].keys[:2])])
    output = tmp_path / "output"
    gpu_report.main(output=output, minutes=1, work=tmp_path / "work", device="cpu")
    parts = json.loads((output / "report.json").read_text())["parts"]
    assert parts["accuracy"]["note"].startswith("not available")
    assert [part["status"] for part in parts.values()] == ["done"] * 3
    assert "trained" in (output / "training.log").read_text()
    with tarfile.open(output / "training.tar.00") as archive:
        assert archive.getnames() == ["state/weights"]
    rows = json.loads((output / "benchmarks.json").read_text())["cpu"]["deformable"]["rows"]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert "CST, semantic | forward | 128 x 128" in (output / "report.md").read_text()


def test_a_failure_does_not_stop_the_next_part(training, tmp_path, monkeypatch):
    def broken(report, seconds):
        raise RuntimeError("no such device")

    monkeypatch.setitem(gpu_report.PARTS, "benchmarks", broken)
    training.write_text("raise SystemExit(3)")
    gpu_report.main(output=tmp_path, minutes=1, only="benchmarks,training", work=tmp_path / "work", device="cpu")
    parts = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert parts["benchmarks"]["note"] == "RuntimeError: no such device"
    assert "status 3" in parts["training"]["note"]


def test_training_is_stopped_in_time(training, tmp_path):
    training.write_text("import time; time.sleep(60)")
    gpu_report.main(output=tmp_path, minutes=0.02, only="training", work=tmp_path / "work", device="cpu")
    part = json.loads((tmp_path / "report.json").read_text())["parts"]["training"]
    assert "stopped at the end of the time" in part["note"]
    assert part["seconds"] < 20


def test_large_files_come_in_pieces_and_the_oldest_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_report, "PIECE_BYTES", 20_480)
    monkeypatch.setattr(gpu_report, "MAX_PIECES", 3)
    work, output = tmp_path / "work", tmp_path / "output"
    work.mkdir()
    output.mkdir()
    (work / "new").write_bytes(b"n" * 25_000)
    (work / "huge").write_bytes(b"h" * 70_000)
    assert gpu_report.pack(work, output, 0) == ["huge"]
    pieces = sorted(output.iterdir())
    assert len(pieces) > 1
    assert all(piece.stat().st_size <= 20_480 for piece in pieces)
    whole = tmp_path / "whole.tar"
    whole.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    with tarfile.open(whole) as archive:
        assert archive.extractfile("new").read() == b"n" * 25_000


def test_accuracy_finds_a_wrong_engine(monkeypatch):
    def row(engine, case):
        key = {"engine": engine, "dtype": "float32", **case}
        return {
            "key": key,
            "status": "ok",
            "values": {k: [v] for k, v in benchmark_worker.accuracy(key, "cpu").items()},
        }

    def shifted(hidden_states, offsets, *others, **options):
        return benchmark_worker.ENGINES["banded"](hidden_states, offsets + 0.01, *others, **options)

    cases = gpu_report.accuracy_cases(size=31)
    for case in (cases[1], cases[-5], cases[-3], cases[-2]):
        assert benchmark_report.is_accurate(row("banded", case))
    wrong = row("torchvision", cases[-3])
    monkeypatch.setitem(benchmark_worker.ENGINES, "shifted", shifted)
    assert benchmark_report.is_accurate(wrong)
    assert not benchmark_report.is_accurate(row("shifted", cases[-3]))
