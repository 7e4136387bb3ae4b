"""The benchmark of models: its contestants, its processes, and the tables of its figures."""

import json

import benchmark_model
import benchmark_record
import benchmark_report
import benchmark_worker
import pytest
import torch
import typer

from transformers_massformer import MaSSFormerForSemanticSegmentation
from transformers_massformer.conversion import variant_config
from transformers_massformer.models.deform_conv import ModulatedDeformConv2d


SOURCE = {
    "machine": "a machine",
    "versions": {"torch": "2"},
    "date": "today",
    "command": "python scripts/benchmarks/benchmark_model.py --rounds 3",
    "rounds": 3,
    "memory_limit": "1.00 GiB",
    "time_limit": 60,
}


def contestant(model, **fields):
    return benchmark_model.asdict(benchmark_worker.Contestant(model, **fields))


def inference_key(model, side, **fields):
    return {"contestant": contestant(model, **fields), "size": [side, side]}


def results_of(*measurements):
    results = {}
    for section, key, values in measurements:
        result = {"status": "ok", "values": values} if isinstance(values, dict) else {"status": values}
        benchmark_record.add_measurement(results, "cpu", section, SOURCE, {"key": key, **result})
    return results


def line_of(document, start):
    return next(line for line in document.splitlines() if line.startswith(f"| {start} |"))


def test_median_over_rounds_and_ratio():
    key = inference_key("segformer-b2", 64)
    results = results_of(*(("inference", key, {"seconds": seconds}) for seconds in (5.0, 1.0, 2.0)))
    (row,) = results["cpu"]["inference"]["rows"]
    assert benchmark_report.value(row, "seconds") == 2.0
    assert benchmark_report.value(row, "peak_bytes") is None
    assert benchmark_report.ratio(1.0, 4.0) == 0.25
    assert benchmark_report.ratio(None, 4.0) is None
    assert benchmark_report.ratio(1.0, None) is None


def test_slope_is_the_exponent_of_a_power_law():
    pixels = [1e6, 4e6, 16e6]
    assert benchmark_report.log_log_slope(pixels, [3 * x**1.25 for x in pixels]) == pytest.approx(1.25)
    assert benchmark_report.log_log_slope([1e6], [2.0]) is None


def test_a_new_run_replaces_its_sections_only():
    key = inference_key("segformer-b2", 64)
    results = results_of(("inference", key, {"seconds": 1.0}), ("training", key, {"seconds": 1.0}))
    measurement = {"key": key, "status": "ok", "values": {"seconds": 7.0}}
    benchmark_record.add_measurement(results, "cpu", "inference", {**SOURCE, "date": "later"}, measurement)
    assert results["cpu"]["inference"]["rows"][0]["values"] == {"seconds": [7.0]}
    assert results["cpu"]["training"]["rows"][0]["values"] == {"seconds": [1.0]}


def test_document_of_figures():
    gib = 2**30
    ours = {"fuse": True}
    document = benchmark_report.render(
        results_of(
            ("inference", inference_key("mask2former-r50", 2048), {"seconds": 4.0, "peak_bytes": 4 * gib}),
            ("inference", inference_key("massformer-r50", 2048, **ours), {"seconds": 2.0, "peak_bytes": 3 * gib}),
            ("inference", inference_key("mask2former-r50", 4096), "does not fit"),
            ("inference", inference_key("massformer-r50", 4096, **ours), {"seconds": 8.0, "peak_bytes": 5 * gib}),
            ("inference", inference_key("segformer-b2", 4096), "timed out"),
            ("flops", {"model": "massformer-r50", "size": [2048, 2048]}, {"flops": 1e12}),
            ("ceilings", {"ceiling": "float32"}, {"per_second": 2e12}),
        ),
        "benchmarks.json",
    )
    small, large = document.split("### 2048 x 2048")[1].split("### 4096 x 4096")
    unknown = "not measured |  | not measured |  |"
    assert line_of(small, "MaSSFormer r50, fused").endswith(f"| 2.0 s | 0.50 | 3.00 GiB | 0.75 | {unknown}")
    assert line_of(large, "Mask2Former-R50").endswith(f"| does not fit |  | does not fit |  | {unknown}")
    assert line_of(large, "MaSSFormer r50, fused").endswith(f"| 8.0 s |  | 5.00 GiB |  | {unknown}")
    scaling = document.split("## Cost against the number of pixels")[1]
    assert line_of(scaling, "MaSSFormer r50, fused").endswith("| 1.00 | 4.00 | not measured | not measured |")
    achieved = document.split("## Operations per second")[1]
    assert line_of(achieved, "MaSSFormer r50, fused").endswith("| 500 (25%) | not measured |")
    assert SOURCE["command"] in document
    assert "* CUDA: not measured" in document


def test_document_without_figures_says_so():
    document = benchmark_report.render({}, "benchmarks.json")
    for section in ("## Inference\n", "## Training step\n", "## Deformable convolutions\n", "## Peak rates"):
        assert "Not measured." in document.split(section)[1].split("\n## ")[0]


def test_deformable_convolutions_are_compared_with_torchvision():
    key = {"layer": "LSE", "step": "forward", "engine": "banded", "dtype": "float32", "size": [64, 64]}
    results = results_of(
        ("deformable", key, {"seconds": 0.25}),
        ("deformable", {**key, "engine": "torchvision"}, {"seconds": 1.0}),
        (
            "shares",
            {"engine": "banded", "dtype": "float32", "size": [64, 64]},
            {"seconds": 4, "deformable_seconds": 1},
        ),
    )
    assert "| 250 ms | 4.00 | 1.0 s |" in benchmark_report.deformable_table(results, "cpu")
    assert "| 25% |" in benchmark_report.share_table(results, "cpu")


def test_layers_are_those_of_the_model():
    with torch.device("meta"):
        model = MaSSFormerForSemanticSegmentation(variant_config("r50"))
    shapes = [tuple(m.weight.shape[:3]) for m in model.modules() if isinstance(m, ModulatedDeformConv2d)]
    layers = benchmark_worker.DEFORMABLE_LAYERS.values()
    assert sorted(shapes) == sorted((out, channels, kernel) for channels, out, kernel, _ in layers)


def test_contestants():
    contestants = benchmark_model.inference_contestants(["r50", "swin-t"], ["torchvision"], ["float32"], True, True)
    titles = [benchmark_report.title(benchmark_model.asdict(contestant)) for contestant in contestants]
    for expected in (
        "Mask2Former-R50",
        "MaSSFormer r50",
        "MaSSFormer swin-t, fused",
        "MaSSFormer r50, fused, compiled",
    ):
        assert titles.count(expected) == 1
    assert "MaSSFormer r50, fused, engine torchvision" in titles
    assert "MaSSFormer swin-t, fused, engine torchvision" not in titles
    assert len(set(contestants)) == len(contestants)


def test_arguments_are_checked():
    assert benchmark_model.parse_size("3072x4096") == [3072, 4096]
    for wrong in ("3072", "3072x4001", "0x32", "axb"):
        with pytest.raises(typer.BadParameter, match="HEIGHTxWIDTH"):
            benchmark_model.parse_size(wrong)
    with pytest.raises(typer.BadParameter, match="r51"):
        benchmark_model.check_choices(["r51"], ["r50"], "--variants")


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.", "does not fit"),
        ("OutOfMemoryError: CUDA out of memory.", "does not fit"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "does not fit"),
        ("ValueError: no such thing", "failed"),
        ("", "failed"),
    ],
)
def test_failures(message, status):
    assert benchmark_worker.failure(message)["status"] == status


def test_worker_measures_in_its_own_process():
    key = inference_key("massformer-r18-lite", 64)
    broken = inference_key("massformer-r51", 64)
    job = benchmark_model.Job("inference", [key, broken])
    measured, failed = benchmark_model.run_worker(job, "cpu", 2**34, 120)
    assert measured["status"] == "ok"
    assert measured["values"]["seconds"] > 0
    assert measured["values"]["peak_bytes"] > 2**27
    assert failed["status"] == "failed"
    assert "r51" in failed["detail"]


def test_worker_that_takes_too_long():
    job = benchmark_model.Job("ceilings", [{"ceiling": "copy"}, {"ceiling": "float32"}])
    measurements = benchmark_model.run_worker(job, "cpu", None, 0.05)
    assert [measurement["status"] for measurement in measurements] == ["timed out"] * 2


def test_interrupted_run_keeps_what_it_measured(tmp_path, monkeypatch):
    jobs = []

    def run_worker(job, *ignored):
        jobs.append(job)
        if job.section == "training":
            raise KeyboardInterrupt
        return [{"key": key, "status": "ok", "values": {"seconds": 0.5}} for key in job.keys]

    monkeypatch.setattr(benchmark_model, "run_worker", run_worker)
    arguments = {"sizes": "64x64", "variants": "r18-lite", "crop_size": "64x64", "device": "cpu"}
    output = tmp_path / "docs" / "benchmarks.md"
    with pytest.raises(typer.Exit):
        benchmark_model.main(output=output, **arguments)
    assert jobs[-1].section == "training"
    assert "MaSSFormer r18-lite, fused | 500 ms |" in output.read_text()

    # The figures alone reproduce the document.
    document = output.read_text()
    output.unlink()
    benchmark_model.main(output=output, render_only=True)
    assert output.read_text() == document
    assert set(json.loads(output.with_suffix(".json").read_text())["cpu"]) == {"flops", "ceilings", "inference"}
