"""Weights and label maps follow the names of classes, in whatever order model and data have them."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import TINY_FIELDS, TINY_SEMASK, block_labels, tiny_model
from support.tiny_data import write_pair
from support.tiny_peers import peer
from support.training_command import train, write_recipe

from transformers_massformer import MASS13K_LABELS, MaSSFormerForSemanticSegmentation
from transformers_massformer.data.class_names import DataClasses, write_class_names
from transformers_massformer.data.samples import read_sample
from transformers_massformer.inference.loading import class_names
from transformers_massformer.training.arguments import ModelArguments
from transformers_massformer.training.classes import follow_names
from transformers_massformer.training.models import build_model


NAMES = list(MASS13K_LABELS)
KINDS = {
    "plain": {},
    "piloted": {"mask_piloted": True, "pixel_loss_weight": 1.0},
    "semantic": {"backbone_config": TINY_SEMASK},
    "query per class": {"matching": "fixed", "num_queries": 7},
}


def scores(outputs):
    """Return every class's scores of pixels, and those of "no object" last."""
    return outputs.class_queries_logits.softmax(-1).transpose(1, 2) @ outputs.masks_queries_logits.flatten(2)


def loss_of(model, labels):
    """Return the training loss on fixed pixels, without chance."""
    torch.manual_seed(0)
    with torch.no_grad():
        return model.train()(torch.randn(2, 3, 64, 64), labels=labels).loss.item()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2, deadline=None)
@given(order=st.permutations(range(7)))
def test_a_model_of_other_order_starts_the_same(kind, order):
    torch.manual_seed(1)
    model = tiny_model(num_hidden_layers=2, **KINDS[kind])
    model.config.pseudo_label_classes = [0, 5]
    names = [NAMES[index] for index in order]
    turned = follow_names(model, names)
    assert class_names(turned.config) == names
    assert turned.config.label2id == {name: index for index, name in enumerate(names)}
    assert {names[index] for index in turned.config.pseudo_label_classes} == {"others", "sky"}
    with torch.no_grad():
        before, after = (each.eval()(torch.ones(1, 3, 64, 64)) for each in (model, turned))
    torch.testing.assert_close(scores(after), scores(before)[:, [*order, 7]], rtol=1e-3, atol=1e-4)


def test_losses_of_another_order_are_the_same():
    torch.manual_seed(1)
    model, order = tiny_model(num_hidden_layers=2, pixel_loss_weight=1.0), [5, 2, 0, 6, 1, 3, 4]
    turned, place = follow_names(model, [NAMES[index] for index in order]), torch.tensor(order).argsort()
    # Both models draw the points on the masks of the two classes in the same order.
    labels = torch.where(block_labels(2, 64, 64) < 4, 2, 6)
    assert loss_of(turned, place[labels]) == pytest.approx(loss_of(model, labels), rel=1e-3)


@pytest.mark.parametrize("name", ["segformer", "mask2former", "eomt", "oneformer"])
def test_weights_of_other_models_follow_too(name):
    torch.manual_seed(0)
    model = peer(name)
    turned = follow_names(model, NAMES[::-1])
    back = follow_names(turned, NAMES)
    moved = [key for key, value in model.state_dict().items() if not torch.equal(value, turned.state_dict()[key])]
    assert moved
    for key, value in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[key].float(), value.float(), rtol=0, atol=0, check_dtype=False)


def test_classes_are_dropped_and_started_by_name():
    model = tiny_model()
    names = ["water", "car", "others"]
    with pytest.raises(ValueError, match=r"no class car; it has 0 others.*--add_class, or pass --new_classes"):
        follow_names(model, names)
    grown = follow_names(model, names, new=["Car"])
    old, new = model.class_predictor.weight, grown.class_predictor.weight
    assert torch.equal(new[[0, 2, 3]], old[[6, 0, 7]])
    assert not any(torch.equal(new[1], row) for row in old)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save a tiny model of MaSS13K's classes."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    tiny_model(num_hidden_layers=2).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("arguments", "classes", "words"),
    [
        ({"labels": [*NAMES[:6], "river"]}, None, "The model has no class river"),
        ({"labels": ["sky", "Sky"]}, None, "the same name"),
        ({}, DataClasses(["a", "b"], "classes.txt"), "The model has no class a, b"),
        (
            {"model_config": {"id2label": {0: "a", 1: "b"}}},
            DataClasses(["b", "a"], "classes.txt"),
            "model_config differ",
        ),
        ({"model_config": {"num_labels": 3}}, DataClasses(["b", "a"], "classes.txt"), "has 2 classes, but"),
        ({"model_config": {"id2label": {0: "a", 2: "b"}}}, None, "ids have gaps"),
        ({"add_class": ["SKY"]}, None, "exists already"),
    ],
)
def test_classes_that_do_not_fit_are_refused(saved, arguments, classes, words):
    with pytest.raises(ValueError, match=words):
        build_model(ModelArguments(model=str(saved), **arguments), classes=classes)


def test_unnamed_data_have_mass13k_s_classes(saved, tmp_path):
    assumed = DataClasses(NAMES, "MaSS13K", is_assumed=True)
    turned = follow_names(MaSSFormerForSemanticSegmentation.from_pretrained(saved), NAMES[::-1])
    turned.save_pretrained(tmp_path / "turned")
    model, *_ = build_model(ModelArguments(model=str(tmp_path / "turned")), classes=assumed)
    assert class_names(model.config) == NAMES
    own = follow_names(turned, ["a", "b"], new=None)
    own.save_pretrained(tmp_path / "own")
    with pytest.raises(ValueError, match="The data has no class names.*0 a, 1 b"):
        build_model(ModelArguments(model=str(tmp_path / "own")), classes=assumed)
    fields = {"id2label": {str(index): f"c{index}" for index in range(10)}, "num_queries": 12}
    model, *_ = build_model(ModelArguments(model=str(saved), model_config=fields), classes=assumed)
    assert class_names(model.config) == [f"c{index}" for index in range(10)]


def turn(data, order):
    """Store the label maps of data with other ids: `order` has the old id of each new one."""
    table = np.full(256, 255, np.uint8)
    table[list(order)] = np.arange(len(order))
    for path in data.rglob("annotations/*/*.png"):
        PIL.Image.fromarray(table[np.asarray(PIL.Image.open(path))]).save(path)


def test_training_goes_on_with_data_of_another_order(saved, tmp_path):
    order = [5, 2, 0, 6, 1, 3, 4]
    names = [NAMES[index] for index in order]
    for split, count in (("train", 2), ("val", 2)):
        for index in range(count):
            write_pair(tmp_path / "data", split, f"{split}{index}", index)
    shutil.copytree(tmp_path / "data", tmp_path / "turned")
    turn(tmp_path / "turned", order)
    recipe = write_recipe(tmp_path / "tiny.yaml", max_steps=1, model_config=None, learning_rate=0.0, eval_steps=1)
    train(tmp_path / "data", recipe, tmp_path / "one", "--model", saved)
    train(tmp_path / "turned", recipe, tmp_path / "two", "--model", saved, "--labels", *names)
    write_class_names(tmp_path / "turned", names)
    train(tmp_path / "turned", recipe, tmp_path / "three", "--model", saved)
    results = [json.loads((tmp_path / name / "eval_results.json").read_text()) for name in ("one", "two", "three")]
    for result in results[1:]:
        for name in ("eval_mean_iou", "eval_iou_sky", "eval_bf1_water"):
            assert result.get(name) == pytest.approx(results[0].get(name), abs=1e-6), name
    config = json.loads((tmp_path / "three" / "config.json").read_text())
    assert [config["id2label"][str(index)] for index in range(7)] == names


def test_sources_of_another_order_are_brought_together(tmp_path):
    from support.tiny_trainer import arguments

    from transformers_massformer.training.arguments import DataArguments
    from transformers_massformer.training.session import TrainingSession

    order = [5, 2, 0, 6, 1, 3, 4]
    for source in ("one", "two"):
        for split in ("train", "val"):
            for index in range(2):
                write_pair(tmp_path / source, split, f"{source}{index}", index)
    plain = {p.stem: np.asarray(PIL.Image.open(p)) for p in (tmp_path / "two").rglob("annotations/*/*.png")}
    turn(tmp_path / "two", order)
    write_class_names(tmp_path / "two", [NAMES[index].upper() for index in order])
    sources = [{"data": name, "share": 1} for name in ("one", "two")]
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump({"sources": sources}))

    def session(output):
        model = ModelArguments(model_config={**TINY_FIELDS, "num_hidden_layers": 2})
        data = DataArguments(data=str(tmp_path / "mix.yaml"), crop_size=64, short_sides=[72])
        return TrainingSession(model, data, arguments(tmp_path / output))

    found = session("a")
    assert class_names(found.model.config) == NAMES
    for items in (found.train_parts[1], found.eval_items[2:]):
        for index, item in enumerate(items):
            _, label, _ = read_sample(items, index)
            np.testing.assert_array_equal(label.numpy(), plain[item["label"].stem])
    write_class_names(tmp_path / "two", [*(NAMES[index] for index in order[:6]), "river"])
    with pytest.raises(ValueError, match="source 2 .two.: .* lacks ground, which other sources have"):
        session("b")
    write_class_names(tmp_path / "two", ["sky"])
    sources[1]["annotated_classes"] = ["sky"]
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump({"sources": sources}))
    items = session("c").train_parts[1]
    with pytest.raises(ValueError, match="unknown labels .* names 1 classes"):
        read_sample(items, 0)
