"""Training on pseudo-labels: extended models and label settings."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from support.tiny import TINY_SEMASK, block_labels, tiny_model
from support.tiny_trainer import write_data
from support.training_command import train, write_recipe
from transformers import AutoConfig, pipeline

from transformers_massformer import MaSSFormerForSemanticSegmentation
from transformers_massformer.data.pseudo_labels import PseudoLabelFiles
from transformers_massformer.inference.loading import class_names
from transformers_massformer.training import LabelSetting, add_classes
from transformers_massformer.training.classes import apply_setting, check_new_classes


def test_a_grown_model_keeps_its_weights():
    model = tiny_model()
    grown = add_classes(model, ["car", "bicycle"])
    assert class_names(grown.config)[7:] == ["car", "bicycle"]
    assert class_names(model.config)[-1] == "water"
    old, new = model.state_dict(), grown.state_dict()
    for name, value in old.items():
        if not name.startswith("class_predictor."):
            assert torch.equal(value, new[name]), name
    for name in ("class_predictor.weight", "class_predictor.bias"):
        assert len(new[name]) == 10
        assert torch.equal(new[name][:7], old[name][:7])
        assert torch.equal(new[name][-1], old[name][-1])
        assert new[name][7:9].abs().sum() > 0
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before, after = model(pixel_values), grown(pixel_values)
    assert torch.equal(before.masks_queries_logits, after.masks_queries_logits)
    old_columns = [*range(7), 9]
    torch.testing.assert_close(before.class_queries_logits, after.class_queries_logits[..., old_columns])


def test_what_only_training_uses_grows_too():
    model = tiny_model(mask_piloted=True, pixel_loss_weight=1.0)
    grown = add_classes(model, ["car"])
    for name, old in model.state_dict().items():
        if name.startswith(("pixel_classifiers.", "class_embeddings.")):
            assert torch.equal(grown.state_dict()[name][:7], old), name
    labels = block_labels(2, 64, 64, num_labels=8)
    grown.train()(torch.randn(2, 3, 64, 64), labels=labels).loss.backward()
    assert grown.class_embeddings.weight.grad[7].abs().sum() > 0


def test_semantic_maps_grow_too():
    model = tiny_model(backbone_config=TINY_SEMASK)
    grown = add_classes(model, ["car"])
    pixel_values, labels = torch.randn(2, 3, 64, 64), block_labels(2, 64, 64, num_labels=8)
    with torch.no_grad():
        before, after = model(pixel_values), grown(pixel_values)
    torch.testing.assert_close(before.masks_queries_logits, after.masks_queries_logits, rtol=1e-4, atol=1e-4)
    for old, new in zip(before.semantic_maps, after.semantic_maps, strict=True):
        assert new.shape[1] == 8
        torch.testing.assert_close(new[:, :7], old, rtol=1e-4, atol=1e-4)
    outputs = grown.train()(pixel_values, labels=labels)
    outputs.loss.backward()
    assert "loss_semantic" in outputs.loss_dict
    keys = [p.grad for n, p in grown.named_parameters() if ".semantic_layer." in n and n.endswith("k_proj.weight")]
    assert all(gradient[7].abs().sum() > 0 for gradient in keys)


def test_classes_one_by_one_or_together():
    together = add_classes(tiny_model(), ["car", "bicycle"])
    one_by_one = add_classes(add_classes(tiny_model(), ["car"]), ["bicycle"])
    assert together.config.id2label == one_by_one.config.id2label
    for names in (["sky"], ["car", "car"]):
        with pytest.raises(ValueError, match="exists already"):
            add_classes(tiny_model(), names)
    with pytest.raises(StrictDataclassError, match="Increase `num_queries`"):
        add_classes(tiny_model(), ["a", "b", "c"])


def test_edges_are_suppressed_as_the_setting_says():
    model = add_classes(tiny_model(), ["car"])
    apply_setting(model, LabelSetting.reweighted, [7])
    assert model.criterion.config.pseudo_label_classes == [0, 7]
    assert model.criterion.edge_emphases(torch.tensor([0, 1, 7])).tolist() == [-1, 5, -1]
    more = add_classes(model, ["bicycle"])
    apply_setting(more, LabelSetting.reweighted, [7, 8])
    assert more.config.pseudo_label_classes == [0, 7, 8]
    for setting in (LabelSetting.unweighted, LabelSetting.alone):
        apply_setting(more, setting, [7, 8])
        assert more.config.pseudo_label_classes == []


def test_classes_of_model_and_labels_must_agree():
    check_new_classes(add_classes(tiny_model(), ["car"]), {7: "car"})
    for model, classes in ((tiny_model(), {7: "car"}), (add_classes(tiny_model(), ["bicycle"]), {7: "car"})):
        with pytest.raises(ValueError, match="The pseudo-labels have class 7 car, the model 0 others"):
            check_new_classes(model, classes)


@pytest.fixture
def data(tmp_path) -> Path:
    """Write training photos whose lower right quarter is pseudo-labelled as a car."""
    write_data(tmp_path / "data", num_eval=1)
    files = PseudoLabelFiles(tmp_path / "labels")
    for index in range(6):
        label_map = np.array(PIL.Image.open(tmp_path / "data" / "annotations" / "train" / f"train{index}.png"))
        alone = np.zeros_like(label_map)
        alone[40:, 48:] = 7
        label_map[40:, 48:] = 7
        for path, values in (
            (files.combined("train", f"train{index}"), label_map),
            (files.alone("train", f"train{index}"), alone),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(values).save(path)
    files.manifest.write_text(json.dumps({"categories": [{"id": 7, "name": "car"}]}))
    return tmp_path / "data"


@pytest.fixture
def recipe(tmp_path) -> Path:
    return write_recipe(tmp_path / "tiny.yaml", max_steps=2)


@pytest.mark.parametrize("setting", LabelSetting)
def test_a_model_learns_a_class_from_the_command_line(data, recipe, tmp_path, setting):
    labels = str(tmp_path / "labels")
    output = tmp_path / "trained"
    options = ["--add-class", "car", "--pseudo-labels", labels, "--label-setting", setting]
    train(data, recipe, output, *options)
    config = AutoConfig.from_pretrained(output)
    assert config.id2label[7] == "car"
    assert config.pseudo_label_classes == ([0, 7] if setting == "reweighted" else [])
    assert f"with pseudo-labels of `labels` ({setting})" in (output / "README.md").read_text()
    masks = pipeline("image-segmentation", model=str(output))(str(data / "images" / "val" / "val0.jpg"))
    assert {mask["mask"].size for mask in masks} == {(96, 80)}


def test_a_trained_checkpoint_is_extended(data, recipe, tmp_path):
    train(data, recipe, tmp_path / "seven")
    write_recipe(recipe, max_steps=2, model_config=None, learning_rate=0.0)
    options = ["--model", str(tmp_path / "seven"), "--add-class", "car", "--pseudo-labels", str(tmp_path / "labels")]
    train(data, recipe, tmp_path / "eight", *options)
    seven, eight = (
        MaSSFormerForSemanticSegmentation.from_pretrained(tmp_path / name).class_predictor.weight
        for name in ("seven", "eight")
    )
    assert torch.equal(eight[:7], seven[:7])
    assert torch.equal(eight[-1], seven[-1])


def test_pseudo_labels_that_do_not_fit(data, recipe, tmp_path):
    labels = ["--pseudo-labels", str(tmp_path / "labels")]
    result = train(data, recipe, tmp_path / "a", *labels, code=1)
    assert "The pseudo-labels have class 7 car" in result.output
    (tmp_path / "labels" / "annotations" / "train" / "train3.png").unlink()
    result = train(data, recipe, tmp_path / "b", "--add-class", "car", *labels, code=1)
    assert "has no label maps for 1 of 6 photographs, such as" in result.output
    (tmp_path / "labels" / "manifest.json").unlink()
    result = train(data, recipe, tmp_path / "c", "--add-class", "car", "--pseudo-labels", str(tmp_path), code=1)
    assert "error" in result.output
