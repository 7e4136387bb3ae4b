import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from support.tiny import TINY_SEMASK, block_labels, tiny_baseline, tiny_config, tiny_model

from transformers_massformer import (
    MaSSFormerImageProcessor,
    PerPixelBaselineConfig,
)
from transformers_massformer.models import modeling_massformer


both = pytest.mark.parametrize("plus", [False, True], ids=["baseline", "baseline+"])


@both
@torch.no_grad()
def test_logits_are_a_convolution_of_the_pixel_decoder_s_features(plus):
    model = tiny_baseline(plus).eval()
    torch.nn.init.normal_(model.bias)
    pixel_values = torch.randn(2, 3, 64, 96)
    outputs = model(pixel_values)
    inner = model.model(pixel_values)
    for index in range(2):
        kernel = inner.mask_embeddings[-1][index][:, :, None, None]
        expected = F.conv2d(inner.mask_features[index][None], kernel, model.bias)
        assert torch.allclose(outputs.logits[index], expected[0], atol=1e-4)
    constant = torch.equal(inner.mask_embeddings[-1][0], inner.mask_embeddings[-1][1])
    assert constant == (not plus)


@both
@torch.no_grad()
def test_bands_equal_the_whole(plus, monkeypatch):
    model, pixel_values = tiny_baseline(plus).eval(), torch.randn(1, 3, 128, 64)
    whole = model(pixel_values).logits
    monkeypatch.setattr(modeling_massformer, "BAND_VALUES", 1)
    assert torch.allclose(model(pixel_values).logits, whole, atol=1e-4)


@both
@pytest.mark.parametrize("backbone", [{}, {"backbone_config": TINY_SEMASK}], ids=["resnet", "semask"])
def test_the_loss_is_the_cross_entropy_of_the_enlarged_logits(plus, backbone):
    model = tiny_baseline(plus, **backbone).train()
    labels = block_labels(2, 64, 64)
    outputs = model(torch.randn(2, 3, 64, 64), labels=labels)
    steps = 4 if plus else 0
    names = ["loss_cross_entropy", "loss_edge", *(f"loss_cross_entropy_{step}" for step in range(steps))]
    assert set(outputs.loss_dict) - {"loss_semantic"} == set(names)
    assert ("loss_semantic" in outputs.loss_dict) == bool(backbone)
    assert outputs.loss.item() == pytest.approx(sum(outputs.loss_dict.values()).item(), rel=1e-6)
    enlarged = F.interpolate(outputs.logits, size=(64, 64), mode="bilinear")
    expected = F.cross_entropy(enlarged, labels, ignore_index=255, reduction="none").mean()
    assert outputs.loss_dict["loss_cross_entropy"].item() == pytest.approx(expected.item(), rel=1e-5)


@both
def test_logits_are_read_at_the_size_of_the_photograph(plus):
    model = tiny_baseline(plus)
    processor = MaSSFormerImageProcessor()
    inputs = processor(torch.randint(0, 255, (3, 51, 75), dtype=torch.uint8), return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    (label_map,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(51, 75)])
    expected = F.interpolate(outputs.logits, size=(64, 96), mode="bilinear")[0, :, :51, :75].argmax(0)
    assert torch.equal(label_map, expected)
    (as_it_is,) = processor.post_process_semantic_segmentation(outputs)
    assert torch.equal(as_it_is, outputs.logits[0].argmax(0))


def test_it_differs_from_massformer_in_the_formulation_only():
    config = tiny_config(num_queries=7)
    massformer = tiny_model(num_queries=7)
    plus = tiny_baseline(True)
    assert plus.config.num_queries == config.num_queries
    ours = {name for name, _ in plus.model.named_parameters()}
    assert ours == {name for name, _ in massformer.model.named_parameters()}


def test_another_number_of_queries_is_refused():
    with pytest.raises(StrictDataclassError, match="each class has its own query; got 100"):
        PerPixelBaselineConfig(num_queries=100)
    assert PerPixelBaselineConfig(num_labels=19).num_queries == 19


def test_a_second_pass_is_refused():
    with pytest.raises(StrictDataclassError, match="Per-pixel baselines have one pass"):
        PerPixelBaselineConfig(context_size=64)
