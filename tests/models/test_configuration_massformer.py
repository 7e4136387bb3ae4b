import inspect
import re
from pathlib import Path

import pytest
from support.tiny import TINY_RESNET, tiny_config
from transformers import AutoConfig

from transformers_massformer import MASS13K_LABELS, MaSSFormerConfig


def test_default_is_r50_with_the_seven_classes():
    config = MaSSFormerConfig()
    assert config.backbone_config.model_type == "resnet"
    assert list(config.backbone_config.depths) == [3, 4, 6, 3]
    assert tuple(config.id2label.values()) == MASS13K_LABELS
    assert config.label2id["water"] == 6


@pytest.mark.parametrize("num_labels", [1, 2, 7, 8])
def test_other_numbers_of_labels_survive_saving(num_labels, tmp_path):
    config = MaSSFormerConfig(num_labels=num_labels)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is MaSSFormerConfig
    assert loaded.num_labels == num_labels
    assert loaded.id2label == config.id2label == {i: f"LABEL_{i}" for i in range(num_labels)}


def test_every_field_survives_saving(tmp_path):
    config = tiny_config(id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}, edge_weight=0, num_queries=3)
    config.save_pretrained(tmp_path)
    ignored = {"_name_or_path", "transformers_version"}
    before, after = config.to_dict(), MaSSFormerConfig.from_pretrained(tmp_path).to_dict()
    assert {k: v for k, v in before.items() if k not in ignored} == {
        k: v for k, v in after.items() if k not in ignored
    }


def test_every_field_is_documented_and_read():
    package = Path(inspect.getfile(MaSSFormerConfig)).parent
    source = "".join((package / name).read_text() for name in ("modeling_massformer.py", "loss_massformer.py"))
    for field in MaSSFormerConfig.__annotations__:
        if field in ("model_type", "sub_configs_defaults"):
            continue
        assert re.search(rf"^    {field} \(", MaSSFormerConfig.__doc__, re.M), f"{field} is not documented"
        assert f"config.{field}" in source or field == "backbone_config", f"{field} is not read"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"hidden_size": 18, "num_attention_heads": 4},
            "`hidden_size` must be a multiple of num_attention_heads.*Use 20",
        ),
        ({"hidden_size": 18, "num_attention_heads": 2}, "`hidden_size` must be a multiple of 4"),
        ({"cross_semantic_num_attention_heads": 3}, "multiple of cross_semantic_num_attention_heads"),
        ({"receptive_field_kernel_sizes": [1, 3, 5]}, "multiple of the number of receptive_field_kernel_sizes"),
        ({"receptive_field_kernel_sizes": [1, 2, 3, 4]}, "must list odd kernel sizes.*got \\[1, 2, 3, 4\\]"),
        ({"receptive_field_kernel_sizes": []}, "must list odd kernel sizes"),
        ({"squeeze_reduction": 3}, "multiple of squeeze_reduction"),
        ({"fusion_reduction": 5}, "multiple of fusion_reduction"),
        ({"deform_kernel_size": 4}, "`deform_kernel_size` must be odd.*got 4"),
        ({"edge_emphasis_kernel_size": 0}, "`edge_emphasis_kernel_size` must be odd"),
        ({"context_size": 32}, "`context_size` must be a multiple of 32 and at least 64, got 32"),
        ({"context_size": 100}, "`context_size` must be a multiple of 32 and at least 64, got 100"),
        ({"context_size": 64, "id2label": {0: "sky"}}, "`context_size` .* needs at least two"),
        ({"context_reach": -1}, "`context_reach` must not be negative"),
        ({"lambda_2": -1}, "`lambda_2` must not be negative, got -1"),
        ({"pseudo_label_classes": [0, 7]}, "`pseudo_label_classes` contains \\[7\\], but the classes are 0 to 6"),
        ({"window_size": 0}, "`window_size` must be at least 1, got 0"),
        ({"mask_weight": -1.0}, "`mask_weight` must not be negative, got -1.0"),
        ({"oversample_ratio": 0.5}, "`oversample_ratio` must be at least 1"),
        ({"importance_sample_ratio": 1.5}, "`importance_sample_ratio` must lie in \\[0, 1\\]"),
        ({"num_queries": 5}, "`num_queries` \\(5\\) must be at least the number of labels \\(7\\).*Increase"),
        ({"ignore_index": 3}, "`ignore_index` \\(3\\) is also the index of a class"),
        (
            {"backbone_config": TINY_RESNET | {"out_features": ["stage3", "stage4"]}},
            "must return four feature maps.*\\['stage3', 'stage4'\\].*out_features",
        ),
        ({"hidden_act": 3}, "hidden_act"),
    ],
)
def test_invalid_combinations_raise_with_the_remedy(fields, message):
    with pytest.raises(Exception, match=message):
        tiny_config(**fields)
