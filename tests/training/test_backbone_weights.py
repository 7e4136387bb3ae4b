import re

import pytest
import torch
from safetensors.torch import save_file
from support.tiny import TINY_RESNET, TINY_SEMASK, TINY_SWIN, TINY_TIMM, tiny_config
from torchvision.models import resnet18
from transformers import SwinConfig, SwinForImageClassification

from transformers_massformer import MaSSFormerConfig, MaSSFormerForSemanticSegmentation
from transformers_massformer.training import load_backbone_weights


LITE0 = {"model_type": "timm_backbone", "backbone": "tf_efficientnet_lite0", "out_indices": [1, 2, 3, 4]}
RESNET18 = {
    "model_type": "resnet",
    "layer_type": "basic",
    "depths": [2, 2, 2, 2],
    "hidden_sizes": [64, 128, 256, 512],
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}


def model_with(backbone_config) -> MaSSFormerForSemanticSegmentation:
    return MaSSFormerForSemanticSegmentation(tiny_config(backbone_config=backbone_config)).eval()


def feature_maps(model, image):
    with torch.no_grad():
        return model.model.backbone(image).feature_maps


def randomized(state_dict):
    """Replace all values, including batch statistics, by random ones with which a network stays finite."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(value.shape, generator=generator) * 0.2 + (0.5 if name.endswith("var") else -0.1)
        for name, value in state_dict.items()
        if not name.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("form", ["safetensors", "pth", "folder", "prefixed"])
def test_weights_by_our_own_names(tmp_path, form):
    weights = randomized(model_with(TINY_RESNET).model.backbone.state_dict())
    source = tmp_path / ("model.safetensors" if form == "folder" else f"weights.{form}")
    if form == "prefixed":
        source = tmp_path / "weights.bin"
        weights = {f"model.backbone.{name}": value for name, value in weights.items()}
    if source.suffix == ".safetensors":
        save_file(weights, source)
    else:
        torch.save({"state_dict": weights}, source)
    model = model_with(TINY_RESNET)
    load_backbone_weights(model, tmp_path if form == "folder" else source)
    for name, value in model.model.backbone.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            expected = weights[f"model.backbone.{name}" if form == "prefixed" else name]
            torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_torchvision_weights_give_torchvision_features(tmp_path):
    original = resnet18().eval()
    torch.save(original.state_dict(), tmp_path / "resnet18.pth")
    model = model_with(RESNET18)
    load_backbone_weights(model, tmp_path / "resnet18.pth")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = original.layer1(original.maxpool(original.relu(original.bn1(original.conv1(image)))))
        expected = [expected, original.layer2(expected)]
    for ours, theirs in zip(feature_maps(model, image), expected, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def original_efficientnet_names(state_dict):
    """Rename timm's weights to the names of EfficientNet-PyTorch, block by block."""
    blocks = list(dict.fromkeys(name.split(".")[1:3] and ".".join(name.split(".")[:3]) for name in state_dict))
    blocks = [block for block in blocks if block.startswith("blocks.")]
    plain = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    later = {
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "conv_dw": "_depthwise_conv",
        "bn2": "_bn1",
        "conv_pwl": "_project_conv",
        "bn3": "_bn2",
    }
    renamed = {}
    for name, value in state_dict.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            layers = first if parts[1] == "0" else later
            index = blocks.index(".".join(parts[:3]))
            renamed[f"_blocks.{index}.{layers[parts[3]]}.{parts[4]}"] = value
        else:
            renamed[f"{plain[parts[0]]}.{parts[1]}"] = value
    return renamed


@pytest.mark.parametrize("backbone", [TINY_SWIN, TINY_SEMASK], ids=["swin", "semask"])
@pytest.mark.parametrize("window_size", [4, 6])
def test_a_swin_classifier_starts_swin_and_semask(tmp_path, backbone, window_size):
    fields = {name: value for name, value in TINY_SWIN.items() if name not in ("model_type", "out_features")}
    swin = SwinForImageClassification(SwinConfig(**fields, image_size=64)).eval()
    swin.load_state_dict(randomized(swin.state_dict()))
    swin.save_pretrained(tmp_path)
    model = model_with({**backbone, "window_size": window_size})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_backbone_weights(model, tmp_path)
    image = torch.randn(1, 3, 64, 64)
    layer = model.model.backbone.swin.encoder.layers[0].blocks[0]
    with torch.no_grad():
        embeddings, size = swin.swin.embeddings(image)
        expected = swin.swin.encoder.layers[0].blocks[0](embeddings, size, always_partition=True)[0]
        found = layer(model.model.backbone.swin.embeddings(image)[0], size, always_partition=True)[0]
    assert torch.equal(found, expected) == (window_size == 4)
    table = layer.attention.relative_position_bias.relative_position_bias_table
    original = swin.swin.encoder.layers[0].blocks[0].attention.relative_position_bias.relative_position_bias_table
    assert table.shape == ((2 * window_size - 1) ** 2, 1)
    # The middle entry of both tables is the bias of a token for itself.
    torch.testing.assert_close(table[len(table) // 2], original[len(original) // 2], rtol=0.2, atol=0.02)
    for name, value in model.state_dict().items():
        if "semantic_layer" in name:
            assert torch.equal(value, before[name])


def test_original_efficientnet_weights_load_one_to_one_into_timms(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    original = timm.create_model("tf_efficientnet_lite0").eval()
    torch.save(original_efficientnet_names(original.state_dict()), tmp_path / "lite0.pth")
    model = model_with(LITE0)
    load_backbone_weights(model, tmp_path / "lite0.pth")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = original.forward_intermediates(image, indices=[1, 2, 3, 4], intermediates_only=True)
    for ours, theirs in zip(feature_maps(model, image), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_name_in_timm_without_a_network_is_an_error_with_a_remedy():
    with pytest.raises(ValueError, match=r"Weights named test_resnet could not be loaded.*local file"):
        load_backbone_weights(model_with(TINY_TIMM), "test_resnet")


def test_weights_of_another_architecture_change_nothing(tmp_path):
    model = model_with(TINY_RESNET)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}/resnet18.pth do not fit the backbone: wrong shape")):
        load_backbone_weights(model, tmp_path / "resnet18.pth")
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"missing \(\d+\)"):
        load_backbone_weights(model, tmp_path / "a.pth")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_missing_files_are_named(tmp_path):
    model = MaSSFormerForSemanticSegmentation(MaSSFormerConfig(backbone_config=TINY_RESNET))
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nothing\.pth"):
        load_backbone_weights(model, tmp_path / "nothing.pth")
    with pytest.raises(FileNotFoundError, match="contains none of model.safetensors"):
        load_backbone_weights(model, tmp_path)
