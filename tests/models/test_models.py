"""Run the shared tests on every model class, and train on a table of backbones."""

import pytest
import torch
from base import ExportTests, ModelTests, SegmentationTests
from support.tiny import (
    TINY_SEMASK,
    TINY_SWIN,
    TINY_TIMM,
    block_labels,
    settled,
    tiny_baseline,
    tiny_config,
    tiny_model,
    tiny_semask,
)
from transformers import AutoConfig, AutoModel, AutoModelForSemanticSegmentation

from transformers_massformer import MaSSFormerModel, SeMaskModel, SeMaskSwinBackbone, SeMaskSwinConfig, SeMaskSwinModel


CONVNEXT = {
    "model_type": "convnext",
    "hidden_sizes": [8, 12, 16, 20],
    "depths": [1, 1, 1, 1],
    "out_features": TINY_SWIN["out_features"],
}


class MaSSFormerTests(SegmentationTests):
    auto_class = AutoModelForSemanticSegmentation
    fields: dict = {}

    def build(self):
        return tiny_model(**self.fields)


class TestMaSSFormerForSemanticSegmentation(MaSSFormerTests, ExportTests):
    pass


class TestMaSSFormerOnSwin(MaSSFormerTests):
    fields = {"backbone_config": TINY_SWIN}


class TestMaSSFormerOnTimm(MaSSFormerTests):
    fields = {"backbone_config": TINY_TIMM}


class TestMaSSFormerOnConvNext(MaSSFormerTests):
    fields = {"backbone_config": CONVNEXT}


class TestMaSSFormerOnSeMaskSwin(MaSSFormerTests):
    fields = {"backbone_config": TINY_SEMASK | {"drop_path_rate": 0.0}}
    half_tolerance = 0.25


class TestMaSSFormerWithFixedMatching(MaSSFormerTests):
    fields = {"matching": "fixed", "num_queries": 7}


class TestMaskPilotedMaSSFormer(MaSSFormerTests):
    fields = {"mask_piloted": True}


class TestMaSSFormerWithOneLayer(MaSSFormerTests):
    fields = {"num_hidden_layers": 1}
    num_hidden_states, num_attentions = 2, 1


class TestMaSSFormerModel(ModelTests):
    auto_class, half_tolerance = AutoModel, 0.1

    def build(self):
        return settled(MaSSFormerModel(tiny_config()))


class TestPerPixelBaseline(SegmentationTests, ExportTests):
    auto_class = AutoModelForSemanticSegmentation
    num_hidden_states = num_attentions = 0

    def build(self):
        return tiny_baseline(False)


class TestPerPixelBaselinePlus(SegmentationTests):
    auto_class = AutoModelForSemanticSegmentation

    def build(self):
        return tiny_baseline(True)


class SeMaskTests(ModelTests):
    auto_class = AutoModel
    sizes = ((32, 32), (33, 70), (4, 5), (97, 61))
    num_attentions = 5
    # The large weights of the semantic layers amplify rounding.
    tolerance, half_tolerance = 5e-3, 0.25


class TestSeMaskForSemanticSegmentation(SeMaskTests, SegmentationTests, ExportTests):
    auto_class = AutoModelForSemanticSegmentation

    def build(self):
        return tiny_semask({"drop_path_rate": 0.0, "semantic_attention": ["window", "global"] * 2})


class TestSeMaskModel(SeMaskTests):
    def build(self):
        return settled(SeMaskModel(tiny_semask({"drop_path_rate": 0.0}).config))


class TestSeMaskSwinModel(SeMaskTests):
    def build(self):
        return settled(SeMaskSwinModel(SeMaskSwinConfig(**TINY_SEMASK, drop_path_rate=0.0)))


class TestSeMaskSwinBackbone(SeMaskTests):
    # `AutoBackbone` loads from the Hub only.
    auto_class = SeMaskSwinBackbone

    def build(self):
        return settled(SeMaskSwinBackbone(SeMaskSwinConfig(**TINY_SEMASK, drop_path_rate=0.0)))


# ---------------------------------------------------------------- backbones

SIZES = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]}
WIDTHS = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": 4}
PLAIN = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "patch_size": 16,
}
# Backbones of the library that MaSSFormer supports, besides those above.
HIERARCHICAL = {
    "convnextv2": SIZES,
    "dinov3_convnext": SIZES,
    "hiera": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "image_size": [64, 64]},
    "maskformer-swin": WIDTHS,
    "pp_lcnet": {},
    "pvt_v2": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]},
    "rt_detr_resnet": {"embedding_size": 8, "layer_type": "basic", **SIZES},
    "swinv2": WIDTHS,
}
UNUSABLE = {
    "dinov2": (PLAIN, "one stride, as in plain vision transformers.*choose a hierarchical backbone"),
    "dinov3_vit": (PLAIN, "one stride, as in plain vision transformers"),
    "vitdet": ({**PLAIN, "image_size": 64}, "one stride, as in plain vision transformers"),
    "focalnet": (
        {"embed_dim": 8, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 32, 64]},
        r"sizes \[\(8, 8\).*Choose other `out_features`",
    ),
}


def backbone_config(kind: str, fields: dict):
    config = AutoConfig.for_model(kind, **fields)
    config.out_features = config.stage_names[-4:]
    return config


@pytest.mark.parametrize("kind", HIERARCHICAL)
def test_backbones_with_four_strides_are_trained(kind):
    model = tiny_model(backbone_config=backbone_config(kind, HIERARCHICAL[kind])).train()
    pixel_values = torch.randn(2, 3, 64, 64)
    model(pixel_values, labels=block_labels(2, 64, 64), output_hidden_states=True).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    # Capturing outputs has no effect on later calls.
    assert model(pixel_values).hidden_states is None


@pytest.mark.parametrize("kind", UNUSABLE)
def test_other_backbones_are_refused_with_the_reason(kind):
    fields, message = UNUSABLE[kind]
    model = tiny_model(backbone_config=backbone_config(kind, fields))
    with pytest.raises(ValueError, match=rf"strides 4, 8, 16 and 32.*{message}"):
        model(torch.randn(1, 3, 64, 64))
