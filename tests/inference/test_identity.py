"""Test that the same model and options are recognized, and others are not."""

import json
import os
import shutil

import pytest
import torch

from transformers_massformer.inference.identity import model_identity, prediction_settings
from transformers_massformer.inference.predictor import PredictionOptions


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json", "model.safetensors", "README.md", "training.json"):
        (folder / name).write_text(f'"{name}"')
    return folder


def test_a_model_that_was_copied_or_moved_is_the_same(model, tmp_path):
    identity = model_identity(model)
    shutil.copytree(model, tmp_path / "copy", copy_function=shutil.copyfile)
    os.symlink(model, tmp_path / "link")
    for name in ("copy", "link"):
        assert model_identity(tmp_path / name) == identity
    assert model_identity(str(model) + "/") == identity


@pytest.mark.parametrize(
    ("name", "matters"),
    [
        ("config.json", True),
        ("preprocessor_config.json", True),
        ("model.safetensors", True),
        ("model-00002-of-00002.safetensors", True),
        ("README.md", False),
        ("training.json", False),
        ("eval_results.json", False),
        ("checkpoint-5/model.safetensors", False),
    ],
)
def test_what_belongs_to_a_model(model, name, matters):
    identity = model_identity(model)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("changed")
    assert (model_identity(model) != identity) == matters


def test_an_exported_model_is_its_file(tmp_path):
    (tmp_path / "a.onnx").write_text("1")
    (tmp_path / "b.onnx").write_text("1")
    (tmp_path / "c.onnx").write_text("2")
    first, copy, other = (model_identity(tmp_path / f"{name}.onnx") for name in "abc")
    assert first == copy != other


def test_an_adapter_depends_on_its_base(model, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    (adapter / "adapter_model.safetensors").write_text("1")
    identity = model_identity(adapter)
    (model / "model.safetensors").write_text("other")
    assert model_identity(adapter) != identity


def test_a_name_on_the_hub_stands_for_a_commit(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--owner--name"
    monkeypatch.setattr(
        "transformers_massformer.inference.identity.cached_file",
        lambda name, file: str(folder / "snapshots" / commit / file),
    )
    assert model_identity("owner/name") == [["owner/name", commit]]


@pytest.mark.parametrize("name", ["nowhere/at/all", "./nowhere", "owner/unknown-model"])
def test_missing_models(name):
    with pytest.raises(FileNotFoundError, match="There is no model"):
        model_identity(name)


def test_options_count_for_what_they_come_to(model):
    def settings(dtype=torch.float32, **options):
        return prediction_settings(model, PredictionOptions(**options), dtype)

    assert settings() == settings("float32") == json.loads(json.dumps(settings()))
    assert settings(scales=(0.5, 1.0)) == settings(scales=(1.0, 0.5)) == settings(scales=(0.5, 1.0), native_input=True)
    assert settings(tile=512) == settings(tile=512, overlap=64)
    different = [
        settings(),
        settings(torch.bfloat16),
        settings(tile=512),
        settings(tile=512, overlap=65),
        settings(scales=(0.5, 1.0)),
        settings(flip=True),
        settings(native_input=True),
        settings(inference="general"),
        settings(peer_postprocess=True),
    ]
    assert len({json.dumps(each) for each in different}) == len(different)
