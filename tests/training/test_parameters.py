"""Parameter groups, frozen layers and fixed statistics."""

import pytest
import transformers
from support.tiny import TINY_RESNET, tiny_model
from support.tiny_trainer import arguments
from torch import nn

from transformers_massformer.training import parameter_groups
from transformers_massformer.training.parameters import backbone_of, fix_statistics, freeze


def test_parameter_groups():
    model = tiny_model()
    groups = parameter_groups(model, learning_rate=1.0, weight_decay=0.5, backbone_factor=0.1, offset_factor=0.2)
    where = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(where) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        module = model.get_submodule(name.rpartition(".")[0])
        undecayed = isinstance(module, nn.BatchNorm2d | nn.LayerNorm | nn.Embedding)
        factor = 0.1 if ".backbone." in name else 0.2 if ".offset." in name else 1.0
        expected = (factor, 0.0 if undecayed else 0.5)
        assert where[id(parameter)] == expected, name
    assert sum(rate == 0.2 for rate, _ in where.values()) == 16
    for name in ("query_features", "query_positions", "level_embeddings"):
        weight = getattr(model.model.transformer_decoder, name).weight
        assert where[id(weight)] == (1.0, 0.0)
    # The logged learning rate is the first group's, that of the decoders.
    assert groups[0]["lr"] == 1.0


def test_the_order_of_groups_is_that_of_saved_optimisers():
    groups = parameter_groups(tiny_model(), learning_rate=1.0, weight_decay=0.5, backbone_factor=0.1)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1, 0), (1, 0.5), (0.1, 0), (0.1, 0.5)]


def test_freezing_goes_with_the_arguments(tmp_path):
    model = tiny_model()
    freeze(model, arguments(tmp_path, train_backbone_norms=True))
    assert all(parameter.requires_grad for parameter in model.parameters())
    freeze(model, arguments(tmp_path, freeze_backbone=True))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("model.backbone.")}


def test_statistics_of_the_backbone_alone_can_be_fixed(tmp_path):
    model = tiny_model().train()
    fix_statistics(model, arguments(tmp_path, fixed_norm_statistics="backbone"))
    in_eval = {
        name for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d) and not layer.training
    }
    assert in_eval
    assert all(name.startswith("model.backbone.") for name in in_eval)


def test_backbones_of_other_models_are_found():
    config = transformers.Mask2FormerConfig(backbone_config=TINY_RESNET, feature_size=32, hidden_dim=32)
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    assert backbone_of(model) is model.model.pixel_level_module.encoder
    with pytest.raises(ValueError, match="Linear has no backbone"):
        backbone_of(nn.Linear(1, 1))
