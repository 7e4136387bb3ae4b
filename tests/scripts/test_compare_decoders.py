"""Comparison of decoders trained under equal conditions."""

import json
import time
from pathlib import Path

import PIL.Image
import pytest
import torch
import typer
from ablation import AblatedMaSSFormer, AblationConfig
from benchmark_report import render
from compare_decoders import (
    CachedSamples,
    by_domain,
    cache_samples,
    check_work,
    file_name,
    list_jobs,
    main,
    pairs_of,
    run_apart,
)
from decoders import (
    ABLATION,
    ABLATION_AS_FOUND,
    AS_FOUND,
    DECODERS,
    FORMULATIONS,
    NEW_MODEL_FIELDS,
    SWITCHES,
    build_decoder,
)
from support.commands import run_python
from support.tiny import block_labels, tiny_config, tiny_model
from support.tiny_data import write_pair

from transformers_massformer import MaSSFormerImageProcessor
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.data.transforms import TrainingTransform
from transformers_massformer.inference.predictor import ModelPredictor, PredictionOptions
from transformers_massformer.models import modeling_massformer
from transformers_massformer.training.collation import collate_for
from transformers_massformer.training.session import items


def samples():
    torch.manual_seed(0)
    labels = block_labels(2, 64, 64, block=16)
    return [{"pixel_values": torch.randn(3, 64, 64), "labels": label} for label in labels]


@pytest.mark.filterwarnings("ignore:You'd better set embed_dim:UserWarning")
@pytest.mark.parametrize("name", [*DECODERS, *FORMULATIONS[:-1]])
def test_every_decoder_learns_on_the_same_samples(name):
    # MaskFormer resizes its feature maps to powers of two.
    model = build_decoder(name, tiny_config(hidden_size=32)).train()
    loss = model(**collate_for(model)(samples())).loss
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    backbone = [p for n, p in model.named_parameters() if "backbone" in n or "pixel_level_module.encoder" in n]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone)


@pytest.mark.filterwarnings("ignore:You'd better set embed_dim:UserWarning")
@pytest.mark.parametrize("name", [*DECODERS[:5], *FORMULATIONS[:-1]])
def test_every_decoder_is_evaluated_on_whole_photographs(name):
    model = build_decoder(name, tiny_config(hidden_size=32)).eval()
    photo = PIL.Image.effect_noise((96, 64), 50).convert("RGB")
    batch = collate_for(model)([{"image": photo, "label": torch.zeros(64, 96, dtype=torch.uint8), "name": "a"}])
    assert batch["image"] == [photo]
    predictor = ModelPredictor(model, MaSSFormerImageProcessor(), PredictionOptions(native_input=True))
    assert predictor(photo).shape == (64, 96)


@pytest.mark.parametrize("rows", [ABLATION, ABLATION_AS_FOUND])
def test_the_rows_of_table_4_add_a_module_each(rows):
    rows = [build_decoder(name, tiny_config()).config for name in rows]
    switches = [{switch for switch in SWITCHES if getattr(row, switch)} for row in rows]
    assert [len(row) for row in switches] == [0, 1, 2, 3]
    assert all(smaller < larger for smaller, larger in zip(switches, switches[1:], strict=False))
    assert [row.edge_weight for row in rows] == [0] * 4
    assert build_decoder("MaSSFormer", tiny_config()).config.edge_weight == 10


def test_rows_trained_as_found_have_its_fields():
    for name in (AS_FOUND, *ABLATION_AS_FOUND):
        config = build_decoder(name, tiny_config()).config
        assert {field: getattr(config, field) for field in NEW_MODEL_FIELDS} == NEW_MODEL_FIELDS
    assert not build_decoder("MaSSFormer", tiny_config()).config.detail_residual


@pytest.mark.parametrize("fields", [{}, NEW_MODEL_FIELDS])
@pytest.mark.parametrize("switch", SWITCHES)
def test_a_model_without_a_module_is_smaller_learns_and_runs_in_bands(switch, fields, monkeypatch):
    own = {"model_type": AblationConfig.model_type, switch: False}
    config = AblationConfig(**{**tiny_config(**fields).to_dict(), **own})
    model, full = AblatedMaSSFormer(config).train(), tiny_model(**fields)
    assert model.num_parameters() < full.num_parameters()
    pixel_values, labels = torch.randn(2, 3, 64, 32), block_labels(2, 64, 32)
    outputs = model(pixel_values, labels=labels)
    outputs.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        whole = model.eval()(pixel_values)
        monkeypatch.setattr(modeling_massformer, "BAND_VALUES", 1)
        bands, reference = model(pixel_values), full(pixel_values)
    for name in ("class_queries_logits", "masks_queries_logits", "edge_logits"):
        assert outputs[name].shape == reference[name].shape
        torch.testing.assert_close(bands[name], whole[name], rtol=1e-4, atol=1e-4)


def test_no_two_models_share_a_record():
    names = [*DECODERS, *FORMULATIONS[:-1]]
    assert len({file_name(name) for name in names}) == len(names)


def test_the_first_jobs_are_the_first_seed_of_the_first_decoders():
    assert by_domain(["a", "photographs=b", "photographs=c"]) == {"scenes": ["a"], "photographs": ["b", "c"]}
    jobs = list(list_jobs(["A", "B"], ["scenes", "photographs"], 2, 10, {"A": 6, "B": 10}))
    assert jobs[:3] == [("A", "scenes", 0, 10), ("A", "photographs", 0, 10), ("A", "scenes", 0, 6)]
    assert len(jobs) == len(set(jobs)) == 12
    assert [seed for _, _, seed, _ in jobs] == [0] * 6 + [1] * 6


def test_cached_samples_are_those_of_the_epochs_in_their_order(scenes):
    options = {"data": {"scenes": [str(scenes / "data")]}, "crop_size": 64, "batch_size": 2, "scales": [1.0, 1.0]}
    cache_samples("scenes", 3, options, scenes / "cache", 4, 1)
    cached = CachedSamples(scenes / "cache", 4)
    pairs = pairs_of(options["data"]["scenes"], "train")
    fresh = TrainingSet(items(pairs), TrainingTransform(64, scales=(1.0, 1.0)), 3)
    for index in range(4):
        fresh.set_epoch(index // 2)
        sample = fresh[fresh.order()[index % 2]]
        assert cached[index]["labels"].equal(sample["labels"])
        torch.testing.assert_close(cached[index]["pixel_values"], sample["pixel_values"], rtol=1e-3, atol=1e-3)


def test_no_run_starts_after_the_deadline(tmp_path):
    assert run_apart(("SegFormer", "scenes", 0, 1), {}, tmp_path, tmp_path, time.monotonic()) is None


# Settings that train within seconds.
QUICK = ("--steps", "1", "--crop-size", "64", "--batch-size", "2", "--points", "64", "--seeds", "1", "--threads", "1")


@pytest.fixture
def scenes(tmp_path) -> Path:
    """Return a folder whose `data` are two photographs for training and one for evaluation."""
    for index in range(2):
        write_pair(tmp_path / "data", "train", f"train{index}", index)
    write_pair(tmp_path / "data", "val", "val0", 100)
    return tmp_path


def run_comparison(folder: Path, weights: Path, *options: str):
    """Run the script."""
    files = ("--results-file", folder / "all.json", "--output", folder / "all.md")
    command = ("scripts/research/compare_decoders.py", "--data", folder / "data", "--work", folder / "work", *files)
    run_python(*command, "--backbone-weights", weights, *QUICK, *options)


def test_a_comparison_from_data_to_table(scenes):
    timm = pytest.importorskip("timm")
    weights, options = scenes / "lite0.pth", ("--decoder", "SegFormer", "--equal-time", "SegFormer")
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), weights)
    run_comparison(scenes, weights, *options)
    results = json.loads((scenes / "all.json").read_text())
    rows = results["cpu"]["decoders"]["rows"]
    times = json.loads((scenes / "work" / "step_seconds.json").read_text())
    as_long = max(1, round(times["Mask2Former"] / times["SegFormer"]))
    assert [row["key"]["steps"] for row in rows] == list(dict.fromkeys((1, as_long)))
    scores = {"mean_iou", "mean_boundary_iou", "mean_bf1", "mean_pq_st", "overall_accuracy"}
    costs = {"seconds", "step_seconds", "peak_bytes", "parameters", "learning_rate"}
    assert all(row["values"].keys() == scores | costs for row in rows)
    document = (scenes / "all.md").read_text()
    assert document == render(results, "all.json")
    assert "on 2 scenes of 96 x 80 pixels, evaluation on 1 held-out scenes; 2 crops of 64 pixels per step" in document
    assert "| SegFormer |" in document
    # What is done is kept, and not mixed with other options.
    records = {path: path.stat().st_mtime_ns for path in (scenes / "work").glob("scenes-segformer-*.json")}
    assert len(records) == len(rows)
    run_comparison(scenes, weights, *options)
    assert {path: path.stat().st_mtime_ns for path in records} == records
    with pytest.raises(ValueError, match="contains runs with other options"):
        check_work(scenes / "work", {"steps": 2})


def test_general_inference_is_compared_for_models_of_queries(scenes):
    decoders = ("--decoder", "Semantic-FPN, SeMask-Swin", "--decoder", "MaSSFormer, SeMask-Swin")
    # Their Swin starts from nothing, so the weights are never read.
    run_comparison(scenes, scenes / "none.pth", "--formulations", *decoders)
    pixels, masks = json.loads((scenes / "all.json").read_text())["cpu"]["formulations"]["rows"]
    assert not [name for name in pixels["values"] if name.startswith("general_")]
    assert {f"general_{name}" for name in ("mean_iou", "mean_pq_st")} <= masks["values"].keys()
    (line,) = [x for x in (scenes / "all.md").read_text().splitlines() if x.startswith("| Semantic-FPN, SeMask")]
    assert line.split("|")[9:11] == [" - ", " - "]
    with pytest.raises(typer.BadParameter, match="Semantic-FPN, Swin"):
        main(["scenes"], "none.pth", decoders=["Semantic-FPN, Swin"])
