"""`massformer train` on a mixture of data sets."""

import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from support.tiny import tiny_model
from support.tiny_data import write_pair
from support.tiny_peers import FIELDS
from support.training_command import TINY, train, write_recipe

from transformers_massformer import MaSSFormerForSemanticSegmentation
from transformers_massformer.training.collation import QUALITY, collate, collate_for


CLASSES = ["others", "human", "building", "vegetation", "ground", "sky", "water"]


@pytest.fixture
def mixture(tmp_path) -> Path:
    """Return a mixture of two folders of four photos, of which only the first has a validation split."""
    for name, splits in (("exact", {"train": 4, "val": 1}), ("coarse", {"train": 4})):
        for split, count in splits.items():
            for index in range(count):
                write_pair(tmp_path / name, split, f"{split}{index}", index)
    return write_mixture(tmp_path)


def write_mixture(folder: Path, **fields) -> Path:
    """Write the description; fields are those of the second source."""
    second = {"data": "coarse", "share": 1, "edges": "coarse", "scales": [0.9, 1.2], "annotated_classes": CLASSES}
    sources = [{"data": "exact", "share": 1}, {**second, **fields}]
    (folder / "mixture.yaml").write_text(yaml.safe_dump({"sources": sources}))
    return folder / "mixture.yaml"


@pytest.fixture
def batches(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """Return the batches that the model gets in training, once it has."""
    found, forward = [], MaSSFormerForSemanticSegmentation.forward

    @functools.wraps(forward)
    def recording(self, *args, **inputs):
        if self.training:
            found.append({name: value.clone() for name, value in inputs.items() if torch.is_tensor(value)})
        return forward(self, *args, **inputs)

    monkeypatch.setattr(MaSSFormerForSemanticSegmentation, "forward", recording)
    return found


def test_a_mixture_trains_resumes_and_is_on_the_card(mixture, batches, tmp_path):
    recipe, output = write_recipe(tmp_path / "tiny.yaml", max_steps=6, save_total_limit=3), tmp_path / "trained"
    train(mixture, recipe, output)
    whole = list(batches)
    assert len(whole) == 6
    for batch in whole:
        assert batch["coarse_edges"].shape == (2,)
        assert batch["coarse_edges"].dtype == batch["annotated_classes"].dtype == torch.bool
        assert batch["annotated_classes"].shape == (2, 7)
    assert {flag for batch in whole for flag in batch["coarse_edges"].tolist()} == {True, False}
    card = (output / "README.md").read_text()
    described = (
        "50 % from `exact` (exact edges), 50 % from `coarse` (coarse edges, scales 0.9 to 1.2, labels of others /"
    )
    assert f"8 images of `mixture.yaml`, split `train`: {described}" in card
    assert "On the 1 images of split `validation`" in card
    # As if interrupted after the second step, in the middle of the first epoch.
    for step in (4, 6):
        shutil.rmtree(output / f"checkpoint-{step}")
    (output / "eval_results.json").unlink()
    batches.clear()
    train(mixture, recipe, output)
    assert len(batches) == 4
    for resumed, expected in zip(batches, whole[2:], strict=True):
        assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_another_description_is_another_training(mixture, batches, tmp_path):
    recipe, output = write_recipe(tmp_path / "tiny.yaml", max_steps=2), tmp_path / "trained"
    train(mixture, recipe, output)
    write_mixture(tmp_path).write_text("# a comment\n" + mixture.read_text())
    train(mixture, recipe, output)
    write_mixture(tmp_path, share=2)
    refused = train(mixture, recipe, output, code=1)
    assert "another training (different sources)" in refused.stderr
    assert len(batches) == 2
    assert len(json.loads((output / "training.json").read_text())["sources"]) == 2


def test_the_identity_of_a_folder_has_no_sources(mixture, batches, tmp_path):
    train(mixture.parent / "exact", write_recipe(tmp_path / "tiny.yaml", max_steps=1), tmp_path / "trained")
    assert "sources" not in json.loads((tmp_path / "trained" / "training.json").read_text())
    assert not any(name in batch for batch in batches for name in QUALITY)


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({"annotated_classes": ["lake"]}, (), r"source 2 (coarse): annotated_classes has the unknown classes lake"),
        ({"edges": "soft"}, (), "source 2 (coarse): edges is 'soft'"),
        ({"data": "empty"}, (), "source 2 (empty): Split train in"),
        ({"data": "bare"}, (), "source 2 (bare): "),
        ({}, ("--train_split", "val"), "source 2 (coarse): Unknown split validation; the data has train"),
        ({}, ("--pseudo_labels", "labels"), "mixture.yaml is a mixture, to which --pseudo_labels does not apply"),
    ],
)
def test_errors_name_the_source_and_leave_no_mark(mixture, tmp_path, fields, options, message):
    for name in ("empty/images/train", "empty/annotations/train", "bare"):
        (tmp_path / name).mkdir(parents=True)
    path = write_mixture(tmp_path, **fields)
    failed = train(path, write_recipe(tmp_path / "tiny.yaml"), tmp_path / "trained", *options, code=1)
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "trained").exists()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_class_that_a_source_does_not_label_is_an_error_that_names_the_map(mixture, tmp_path, workers):
    path = write_mixture(tmp_path, annotated_classes=["sky"])
    options = ("--dataloader_num_workers", workers, "--eval_strategy", "no", "--load_best_model_at_end", "false")
    recipe = write_recipe(tmp_path / "tiny.yaml", model_config={**FIELDS["mask2former"], "model_type": "mask2former"})
    failed = train(path, recipe, tmp_path / "trained", *options, code=1)
    assert "source 2 (coarse): " in failed.stderr
    assert ".png has pixels of " in failed.stderr
    assert "Traceback" not in failed.stderr


def test_other_models_train_on_a_mixture(mixture, tmp_path):
    for kind in ("mask2former", "upernet"):
        recipe = {**TINY, "max_steps": 1, "model_config": {**FIELDS[kind], "model_type": kind}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        train(mixture, tmp_path / "recipe.yaml", tmp_path / kind)
        assert (tmp_path / kind / "model.safetensors").is_file()


def test_only_massformer_gets_the_quality_of_labels():
    sample = {"pixel_values": torch.rand(3, 8, 8), "labels": torch.zeros(8, 8, dtype=torch.int64)}
    quality = {"coarse_edges": torch.tensor(True), "annotated_classes": torch.ones(7, dtype=torch.bool)}
    model = tiny_model()
    assert collate_for(model) is collate
    assert collate([{**sample, **quality}] * 2)["coarse_edges"].tolist() == [True, True]
    assert collate([sample] * 2).keys() == sample.keys()
    model.config.model_type = "upernet"
    assert collate_for(model)([{**sample, **quality}] * 2).keys() == sample.keys()
    model.config.model_type = "mask2former"
    batch = collate_for(model)([{**sample, **quality}] * 2)
    assert batch.keys() == {"pixel_values", "mask_labels", "class_labels"}
