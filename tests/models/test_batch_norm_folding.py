import pytest
import torch
from support.tiny import TINY_RESNET, TINY_SWIN, TINY_TIMM, tiny_config, tiny_model
from torch import nn

from transformers_massformer import MaSSFormerForSemanticSegmentation, MaSSFormerModel
from transformers_massformer.models.batch_norm_folding import fold_batch_norms, observe


def randomize_statistics(model):
    """Give batch normalizations statistics and parameters that differ from the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return model


@pytest.mark.parametrize("backbone", [TINY_RESNET, TINY_SWIN, TINY_TIMM], ids=["resnet", "swin", "timm"])
def test_fused_models_give_the_same_outputs(backbone):
    model = randomize_statistics(tiny_model(backbone_config=backbone))
    pixel_values = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected = model(pixel_values)
        assert model.fuse() is model
        actual = model.fuse()(pixel_values)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    for name in ("class_queries_logits", "masks_queries_logits", "edge_logits"):
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=1e-4)


def test_folding_keeps_the_activation_of_timm_s_normalisations():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = randomize_statistics(timm.create_model("test_efficientnet", features_only=True)).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(image)
        assert fold_batch_norms(network, image) > 0
        for actual, feature_map in zip(network(image), expected, strict=True):
            torch.testing.assert_close(actual, feature_map, rtol=1e-4, atol=1e-4)


class Awkward(nn.Module):
    """Layers that must not be folded or must not run in place."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Conv2d(3, 3, 1)
        self.added_to = nn.Conv2d(3, 3, 1)
        self.grouped = nn.ConvTranspose2d(3, 3, 1, groups=3)
        self.plain = nn.Conv2d(3, 3, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(4))
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(2))

    def forward(self, x):
        x = self.relus[0](x) + x
        x = self.norms[0](self.shared(x)) + self.shared(x)
        sum_in_place = self.added_to(x)
        sum_in_place += x
        x = self.norms[1](sum_in_place)
        x = self.norms[2](self.grouped(x))
        return self.relus[1](self.norms[3](self.plain(x)))


def test_only_what_is_safe_is_folded():
    network = randomize_statistics(Awkward()).eval()
    image = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = network(image)
        assert fold_batch_norms(network, image) == 1
        torch.testing.assert_close(network(image), expected)
    assert [isinstance(norm, nn.BatchNorm2d) for norm in network.norms] == [True, True, True, False]
    assert [relu.inplace for relu in network.relus] == [False, True]
    assert observe(network, image).producers == {}


@pytest.mark.parametrize("cls", [MaSSFormerForSemanticSegmentation, MaSSFormerModel])
def test_fused_models_are_neither_saved_nor_trained(tmp_path, cls):
    model = cls(tiny_config()).fuse()
    assert not model.training
    with pytest.raises(ValueError, match=rf"cannot be saved to {tmp_path}.*before calling `fuse`"):
        model.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="cannot be trained.*Load the model again"):
        model.train()
    assert model.eval() is model


def test_half_precision_is_folded_in_float32():
    model = randomize_statistics(tiny_model())
    pixel_values = torch.randn(1, 3, 64, 64)
    layer = model.model.pixel_decoder.mask_projection
    expected = layer.convolution.weight * (
        layer.normalization.weight / (layer.normalization.running_var + layer.normalization.eps).sqrt()
    ).view(-1, 1, 1, 1)
    with torch.no_grad():
        outputs = model.to(torch.bfloat16).fuse()(pixel_values)
    assert outputs.masks_queries_logits.dtype == torch.bfloat16
    torch.testing.assert_close(layer.convolution.weight.float(), expected, rtol=2e-2, atol=2e-2)
