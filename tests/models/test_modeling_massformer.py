import numpy as np
import pytest
import torch
import torch.nn.functional as F
from base import needs_torch_2_8
from hypothesis import given, settings
from hypothesis import strategies as st
from support.golden import DATA, golden_pixel_values, golden_state_dict, subsample
from support.processes import run_in_processes
from support.tiny import TINY_TIMM, block_labels, enable_checkpointing, tiny_config, tiny_model
from transformers import AutoConfig, AutoModel, AutoModelForSemanticSegmentation
from transformers.utils.generic import find_labels

from transformers_massformer import MaSSFormerForSemanticSegmentation, MaSSFormerModel
from transformers_massformer.conversion import VARIANTS, convert_massformer_checkpoint, variant_config
from transformers_massformer.evaluation.profiling import count_operations
from transformers_massformer.models import modeling_massformer
from transformers_massformer.models.modeling_massformer import (
    MaSSFormerPilotedQueries,
    mask_logits,
    merge_windows,
    partition_windows,
    resize,
    sine_position_embedding,
)
from transformers_massformer.models.semantic_readout import read_general_map, read_semantic_map


# ---------------------------------------------------------------- parity with the authors' code


@pytest.fixture(scope="module")
def golden():
    return np.load(DATA / "golden_square.npz")


@pytest.fixture(scope="module")
def converted_r50(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    torch.save({"state_dict": golden_state_dict("r50"), "meta": {"iter": 80000}}, folder / "release.pth")
    return convert_massformer_checkpoint(folder / "release.pth", "r50", folder / "converted")


# Name in the golden file -> module whose output it is.
INNER_FEATURES = {
    "conv_avg": "cross_semantic_transmission.context_projection",
    **{f"proj_{i}": f"lateral_projections.{i}" for i in range(4)},
    **{f"se_{i}": f"squeeze_excitations.{3 - i}" for i in range(4)},
    "cst_dcn1_offset_mask": "cross_semantic_transmission.semantic_convolution.offset",
    "cst_dcn1": "cross_semantic_transmission.semantic_convolution",
    "cst_dcn1_up": "cross_semantic_transmission.semantic_upsample",
    "cst_dcn2_offset_mask": "cross_semantic_transmission.detail_convolution.offset",
    "cst_dcn2": "cross_semantic_transmission.detail_convolution",
    "cst_dcn2_up": "cross_semantic_transmission.detail_upsample",
    **{f"rfb_branch{i}": f"receptive_field_broadening.branches.{i}" for i in range(4)},
    **{f"rfb_branch{i}_offset_mask": f"receptive_field_broadening.branches.{i}.offset" for i in range(4)},
    "lse_dcn_offset_mask": "low_level_structure.deformable.offset",
    "lse_dcn": "low_level_structure.deformable",
    "lse": "low_level_structure",
    "egf_dcn_offset_mask": "edge_guided_fusion.deformable.offset",
    "egf_dcn": "edge_guided_fusion.deformable",
    "egf": "edge_guided_fusion",
    "mask_features": "mask_projection",
    "D4": "memory_projections.0",
    "D3": "memory_projections.1",
    "D2": "memory_projections.2",
}


def final_outputs(outputs) -> dict[str, torch.Tensor]:
    """Return a model's outputs by their names in the golden file."""
    return {
        "edge_logits": outputs.edge_logits,
        "class_logits_6": outputs.class_queries_logits,
        "mask_logits_6_stride4": outputs.masks_queries_logits[:, :, ::4, ::4],
        "mask_logits_6_q0_37_99": outputs.masks_queries_logits[:, [0, 37, 99]],
    }


def assert_golden(golden, name: str, actual: torch.Tensor):
    actual = actual if tuple(actual.shape) == golden[name].shape else subsample(actual)
    tolerance = 1e-3 if "mask_logits" in name or "semantic" in name or name == "mask_features" else 1e-4
    np.testing.assert_allclose(actual.numpy(), golden[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_golden_parity(golden, converted_r50, attention):
    model = MaSSFormerForSemanticSegmentation.from_pretrained(converted_r50, attn_implementation=attention)
    captured, decoder = {}, model.model.pixel_decoder
    for name, path in INNER_FEATURES.items():
        decoder.get_submodule(path).register_forward_hook(lambda m, a, x, name=name: captured.update({name: x}))
    cst, rfb = decoder.cross_semantic_transmission, decoder.receptive_field_broadening
    cst.detail_convolution.register_forward_hook(lambda m, args, o: captured.__setitem__("cst_attn", args[0]))
    rfb.register_forward_hook(lambda m, a, output: captured.update(rfb=output[0], rfb_up=output[1]))
    model.model.backbone.register_forward_hook(
        lambda m, a, output: captured.update({f"backbone_c{i + 2}": x for i, x in enumerate(output.feature_maps)})
    )

    pixel_values = golden_pixel_values(256, 256, [45])
    assert np.array_equal(subsample(pixel_values).numpy(), golden["pixel_values"])
    with torch.no_grad():
        outputs = model(pixel_values, output_auxiliary_logits=True, output_hidden_states=True)
    captured |= final_outputs(outputs)
    for i in range(6):
        captured[f"class_logits_{i}"] = outputs.auxiliary_logits[i]["class_queries_logits"]
        captured[f"mask_logits_{i}"] = outputs.auxiliary_logits[i]["masks_queries_logits"]
        captured[f"query_layer{i}"] = outputs.hidden_states[i + 1]
    label_map, scores = read_semantic_map(
        outputs.class_queries_logits[0], outputs.masks_queries_logits[0], (256, 256), (256, 256), return_scores=True
    )
    captured["semantic_logits_stride4"] = scores[None, :, ::4, ::4]

    assert (label_map.numpy() != golden["semantic_argmax"][0]).sum() <= 3
    compared = set(golden) - {"pixel_values", "weights_sum", "semantic_argmax"}
    assert compared == set(captured)
    for name in sorted(compared):
        assert_golden(golden, name, captured[name])


@pytest.mark.parametrize("engine", ["torchvision", "banded"])
@pytest.mark.parametrize("banded", [False, True], ids=["whole", "bands"])
@pytest.mark.parametrize("fused", [False, True], ids=["loaded", "fused"])
def test_golden_parity_of_every_way_to_compute(golden, converted_r50, monkeypatch, engine, banded, fused):
    monkeypatch.setenv("MASSFORMER_DEFORM_CONV_ENGINE", engine)
    if banded:
        monkeypatch.setattr(modeling_massformer, "BAND_VALUES", 1)
    model = MaSSFormerForSemanticSegmentation.from_pretrained(converted_r50)
    if fused:
        model.fuse()
    pixel_values = golden_pixel_values(256, 256, [45])
    with torch.no_grad():
        assert len(model.model.choose_bands(pixel_values)) == (8 if banded else 1)
        outputs = model(pixel_values)
    for name, actual in final_outputs(outputs).items():
        assert_golden(golden, name, actual)


# ---------------------------------------------------------------- parts, against independent computations


def test_sine_position_embedding_against_its_formula():
    encoding = sine_position_embedding(3, 5, 16, torch.device("cpu"), torch.float32)
    assert encoding.dtype == torch.float32
    for channel in range(16):
        j = channel % 8
        for y in range(3):
            for x in range(5):
                position = (y + 1) / (3 + 1e-6) if channel < 8 else (x + 1) / (5 + 1e-6)
                angle = position * 2 * np.pi / 10000 ** (2 * (j // 2) / 8)
                expected = np.cos(angle) if j % 2 else np.sin(angle)
                assert encoding[channel, y, x].item() == pytest.approx(expected, abs=1e-5)


def test_windows_are_row_major_and_merge_back():
    feature_map = torch.arange(2 * 3 * 8 * 12.0).reshape(2, 3, 8, 12)
    windows = partition_windows(feature_map, 4, 2, 3)
    assert windows.shape == (12, 16, 3)
    assert torch.equal(windows[4].T.reshape(3, 4, 4), feature_map[0, :, 4:8, 4:8])
    assert torch.equal(merge_windows(windows, 4, 2, 3), feature_map)


def test_window_padding_is_neither_read_nor_kept():
    module = tiny_model().model.pixel_decoder.cross_semantic_transmission
    semantic, detail = torch.randn(2, 16, 5, 7), torch.randn(2, 16, 5, 7)
    with torch.no_grad():
        attended = module.attend(semantic, detail)
        # A window of the lower right corner, 1 x 3 positions of it inside the map, computed without padding.
        positions = sine_position_embedding(4, 4, 16, semantic.device, semantic.dtype)[:, :1, :3].flatten(1).T
        windows = [x[:, :, 4:, 4:].flatten(2).transpose(1, 2) for x in (semantic, detail)]
        expected = module.attention(*windows, positions)
    torch.testing.assert_close(attended[:, :, 4:, 4:].flatten(2).transpose(1, 2), expected)


def test_inner_masks_equal_those_made_densely():
    decoder = tiny_model().model.transformer_decoder
    embeddings, features = torch.randn(2, 9, 16), torch.randn(2, 16, 32, 48)
    dense = mask_logits(embeddings, F.avg_pool2d(features, 2))
    resized = F.interpolate(dense, size=(4, 6), mode="bilinear", align_corners=False).flatten(2)
    resized[0, 0] = -1.0
    embeddings[0, 0] = 0
    outside = resized.sigmoid() < 0.5
    outside[outside.all(-1)] = False
    level_features = F.interpolate(F.avg_pool2d(features, 2), size=(4, 6), mode="bilinear", align_corners=False)
    mask = decoder.attention_mask(embeddings, level_features)
    assert torch.equal(mask[:, 0] != 0, outside)
    everywhere = decoder.attention_mask(-torch.ones(1, 1, 16), torch.ones(1, 16, 4, 6))
    assert (everywhere == 0).all()


# ---------------------------------------------------------------- the complete model


def test_auxiliary_logits_come_with_labels_or_on_request():
    model = tiny_model()
    pixel_values, labels = torch.randn(1, 3, 32, 64), block_labels(1, 32, 64)
    with torch.no_grad():
        assert model(pixel_values).auxiliary_logits is None
        assert len(model(pixel_values, labels=labels).auxiliary_logits) == 4
        assert model(pixel_values, labels=labels, output_auxiliary_logits=False).auxiliary_logits is None
        outputs = model(pixel_values, output_auxiliary_logits=True)
    assert outputs.class_queries_logits.shape == (1, 9, 8)
    assert outputs.masks_queries_logits.shape == (1, 9, 16, 32)
    assert outputs.edge_logits.shape == (1, 1, 16, 32)
    for step in outputs.auxiliary_logits:
        assert step["class_queries_logits"].shape == (1, 9, 8)
        assert step["masks_queries_logits"].shape == (1, 9, 8, 16)


def test_hidden_states_and_attentions_are_the_transformer_decoder_s():
    model = tiny_model()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        outputs = model(torch.randn(2, 3, 96, 160), output_hidden_states=True, output_attentions=True)
    assert [x.shape for x in outputs.hidden_states] == [(2, 9, 16)] * 5
    assert [x.shape for x in outputs.attentions] == [(2, 2, 9, n) for n in (15, 60, 240, 15)]


def test_eval_computes_no_mask_that_nobody_reads(monkeypatch):
    shapes = []
    original = mask_logits
    monkeypatch.setattr(
        "transformers_massformer.models.modeling_massformer.mask_logits",
        lambda embeddings, features: shapes.append(tuple(features.shape[-2:])) or original(embeddings, features),
    )
    model = tiny_model()
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert sorted(shapes) == [(2, 2), (2, 2), (4, 4), (8, 8), (32, 32)]


def test_logits_are_the_queries_combined():
    outputs = tiny_model()(torch.randn(1, 3, 32, 32))
    probabilities = outputs.class_queries_logits.softmax(-1)[0, :, :7]
    masks = outputs.masks_queries_logits.sigmoid()[0]
    expected = sum(p[:, None, None] * m for p, m in zip(probabilities, masks, strict=True))
    torch.testing.assert_close(outputs.logits[0], expected)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 8),
    st.integers(1, 4),
    st.integers(1, 200_000),
    st.integers(1, 3),
    st.sampled_from(["torchvision", "banded"]),
    st.booleans(),
    st.sampled_from([None, 64]),
)
def test_bands_equal_the_whole(batch_size, rows, columns, band_values, stripe_bands, engine, residual, context_size):
    torch.manual_seed(0)
    names = ("detail_residual", "cross_semantic_residual", "receptive_field_residual")
    paths = {**dict.fromkeys(names, residual), "pooled_batch_norm": not residual}
    model = tiny_model(deform_conv_engine=engine, context_size=context_size, **paths)
    pixel_values = torch.randn(batch_size, 3, 32 * rows, 32 * columns)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_massformer, "BAND_VALUES", 10**9)
        whole = model(pixel_values)
        patch.setattr(modeling_massformer, "BAND_VALUES", band_values)
        patch.setattr(modeling_massformer, "STRIPE_BANDS", stripe_bands)
        bands = model(pixel_values)
    for name in ("class_queries_logits", "masks_queries_logits", "edge_logits"):
        torch.testing.assert_close(bands[name], whole[name], rtol=1e-4, atol=1e-4)


def test_no_wide_map_at_half_resolution_is_ever_whole(monkeypatch):
    monkeypatch.setattr(modeling_massformer, "BAND_VALUES", 16 * 32 * 16)
    model = tiny_model(hidden_size=32)
    decoder = model.model.pixel_decoder
    heights = {"mask_projection": [], "edge_head": [], "low_level_structure.projection": []}
    for name, seen in heights.items():
        decoder.get_submodule(name).register_forward_hook(lambda *a, seen=seen: seen.append(a[2].shape[2]))
    pixel_values = torch.randn(1, 3, 256, 64)
    with torch.no_grad():
        model(pixel_values)
        # Mask features have twice the channels and are computed twice.
        assert heights.pop("mask_projection") == [8] * 32
        assert list(heights.values()) == [[16] * 8, [16] * 8]
        assert model.model(pixel_values).mask_features.shape[2] == 128
    # Gradients need the complete maps.
    model(pixel_values)
    assert all(seen[8:] == [128, 128] for seen in heights.values())


@pytest.mark.parametrize("band_values", [1, 10**9])
def test_the_base_model_returns_mask_features_or_mask_logits(monkeypatch, band_values):
    monkeypatch.setattr(modeling_massformer, "BAND_VALUES", band_values)
    model = tiny_model().model
    pixel_values = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        with_features, with_logits = model(pixel_values), model(pixel_values, output_pixel_features=False)
    assert with_features.masks_queries_logits is None
    assert with_logits.mask_features is None
    expected = mask_logits(with_features.mask_embeddings[-1], with_features.mask_features)
    torch.testing.assert_close(with_logits.masks_queries_logits, expected, rtol=1e-4, atol=1e-4)
    for name in ("last_hidden_state", "edge_logits"):
        torch.testing.assert_close(with_features[name], with_logits[name], rtol=1e-4, atol=1e-4)


def test_two_passes_are_joined_as_a_weighted_product():
    torch.manual_seed(0)
    model = tiny_model()
    pixel_values = torch.randn(2, 3, 160, 96)
    reduced = F.interpolate(pixel_values, (96, 64), mode="bilinear", antialias=True)
    model.config.context_weight, reach = 3, 2
    with torch.no_grad():
        own, context = model(pixel_values).logits + 1e-3, model(reduced).logits + 1e-3
        own, context = own / own.sum(1, keepdim=True), context / context.sum(1, keepdim=True)
        context = F.max_pool2d(context, 2 * reach + 1, stride=1, padding=reach).log()
        joined = own * F.interpolate(context, own.shape[-2:], mode="bilinear").exp() ** 3
        model.config.context_size, model.config.context_reach = 96, reach
        outputs = model(pixel_values)
    assert outputs.class_queries_logits.shape == (2, 7, 8)
    assert outputs.masks_queries_logits.shape == (2, 7, 80, 48)
    torch.testing.assert_close(outputs.logits, joined / joined.sum(1, keepdim=True), rtol=1e-4, atol=1e-5)
    label_maps = [
        read(outputs.class_queries_logits[0], outputs.masks_queries_logits[0], (150, 90), (150, 90))
        for read in (read_semantic_map, read_general_map)
    ]
    assert torch.equal(label_maps[0][0], label_maps[1])


def test_a_second_pass_is_for_large_images_outside_training():
    model = tiny_model(context_size=96)
    pixel_values, labels = torch.randn(2, 3, 64, 96), block_labels(2, 64, 96)
    with torch.no_grad():
        joined = model(pixel_values, labels=labels)
        model.config.context_size = None
        expected = model(pixel_values, labels=labels)
    # Joining only makes the scores of all classes add up to one.
    scores = expected.logits + modeling_massformer.LEAST_SCORE
    torch.testing.assert_close(joined.logits, scores / scores.sum(1, keepdim=True), rtol=1e-4, atol=1e-5)
    model.config.context_size = 64
    model.train()
    assert model(pixel_values, labels=labels).masks_queries_logits.shape[1] == model.config.num_queries


def test_small_images_cost_one_pass():
    model, shape = tiny_model(), {"pixel_values": torch.Size((1, 3, 96, 96))}
    once = count_operations(model, shape)
    model.config.context_size = 96
    assert count_operations(model, shape) < 1.1 * once
    model.config.context_size = 64
    assert count_operations(model, shape) > 1.3 * once


def test_a_second_pass_cannot_be_switched_off_by_0(tmp_path):
    tiny_model(context_size=64).save_pretrained(tmp_path)
    assert MaSSFormerForSemanticSegmentation.from_pretrained(tmp_path, context_size=None).config.context_size is None
    with pytest.raises(ValueError, match="multiple of 32 and at least 64, got 0; `None` disables"):
        MaSSFormerForSemanticSegmentation.from_pretrained(tmp_path, context_size=0)


def test_checkpointing_recomputes_the_half_resolution_branch():
    model, calls = tiny_model().train(), []
    model.model.pixel_decoder.mask_projection.register_forward_pre_hook(lambda *args: calls.append(1))
    enable_checkpointing(model)
    model(torch.randn(2, 3, 64, 64), labels=block_labels(2, 64, 64)).loss.backward()
    assert len(calls) == 2


@pytest.mark.parametrize("height", [0, 16, 48, 100])
def test_sizes_that_do_not_fit_are_refused(height):
    with pytest.raises(ValueError, match=f"multiples of 32, got {height} x 64.*MaSSFormerImageProcessor"):
        tiny_model()(torch.randn(1, 3, height, 64))


def test_backbones_of_other_strides_are_refused():
    model = tiny_model(backbone_config=TINY_TIMM | {"out_indices": [0, 1, 2, 3]})
    with pytest.raises(ValueError, match=r"strides 4, 8, 16 and 32.*sizes \[\(32, 32\).*out_indices"):
        model(torch.randn(1, 3, 64, 64))


def test_a_training_batch_of_one_is_refused_with_the_reason():
    model = tiny_model().train()
    with pytest.raises(ValueError, match="at least two images per batch.*Raise the batch size"):
        model(torch.randn(1, 3, 64, 64), labels=block_labels(1, 64, 64))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    assert model(torch.randn(1, 3, 64, 64), labels=block_labels(1, 64, 64)).loss.isfinite()


def test_one_step_on_crops_of_a_photo_lowers_the_loss():
    photo = torch.rand(3, 9, 12).repeat_interleave(16, 1).repeat_interleave(16, 2)
    labels = (photo[0] * 3).long()
    pixel_values = torch.stack([photo[:, :96, :96], photo[:, 32:128, 64:160]])
    crops = torch.stack([labels[:96, :96], labels[32:128, 64:160]])
    config = tiny_config(train_num_points=2048, importance_sample_ratio=0.0)
    model = MaSSFormerForSemanticSegmentation(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    torch.manual_seed(5)
    before = model(pixel_values, labels=crops).loss
    before.backward()
    optimizer.step()
    torch.manual_seed(5)
    assert model(pixel_values, labels=crops).loss < before


# ---------------------------------------------------------------- saving, compiling, exporting


def test_weights_that_a_checkpoint_lacks_are_initialised(tmp_path):
    model = tiny_model()
    weights = {name: value for name, value in model.state_dict().items() if "class_predictor" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    loaded, info = AutoModelForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"class_predictor.weight", "class_predictor.bias"}
    assert loaded.class_predictor.weight.isfinite().all()
    assert loaded.class_predictor.weight.std() > 0


def test_initialisation_is_the_release_s():
    model = MaSSFormerForSemanticSegmentation(tiny_config(hidden_size=128, pixel_decoder_hidden_size=64)).model
    decoder, layer = model.pixel_decoder, model.transformer_decoder.layers[0]
    cst = decoder.cross_semantic_transmission
    assert (cst.semantic_convolution.offset.weight == 0).all()
    assert (cst.semantic_convolution.offset.bias == 0).all()
    kernel = torch.tensor([0.25, 0.75, 0.75, 0.25])
    upsample = cst.detail_upsample.convolution.weight
    assert torch.equal(upsample[:, 0], torch.outer(kernel, kernel).expand(64, -1, -1))
    assert upsample[:, 1:].abs().max() <= 1 / (64 * 16) ** 0.5
    for weight, std in (
        (cst.semantic_convolution.convolution.weight, (2 / (64 * 9)) ** 0.5),
        (decoder.mask_projection.convolution.weight, (1 / 64) ** 0.5),
        (layer.cross_attention.q_proj.weight, (2 / (4 * 128)) ** 0.5),
        (layer.self_attention.out_proj.weight, (2 / (2 * 128)) ** 0.5),
        (layer.mlp.fc1.weight, (2 / (128 + 32)) ** 0.5),
        (cst.attention.detail_attention.v_proj.weight, (2 / (4 * 64)) ** 0.5),
        (model.transformer_decoder.query_positions.weight, 1.0),
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.1)
    assert (layer.cross_attention.k_proj.bias == 0).all()
    assert (layer.cross_attention.out_proj.bias == 0).all()


def test_details_reach_the_mask_features_from_the_first_step():
    torch.manual_seed(0)
    model = MaSSFormerForSemanticSegmentation(tiny_config(detail_residual=True))
    detail, body = torch.randn(2, 1, 16, 8, 8)
    assert torch.equal(model.model.pixel_decoder.edge_guided_fusion(detail, body), body + detail)


def test_identity_start_passes_maps_through():
    torch.manual_seed(0)
    config = tiny_config(initialization="identity", hidden_size=128, pixel_decoder_hidden_size=64)
    decoder = MaSSFormerForSemanticSegmentation(config).eval().model.pixel_decoder
    feature_map = torch.rand(1, 64, 8, 8) + 0.1
    upsampled = decoder.cross_semantic_transmission.detail_upsample(feature_map)
    expected = resize(feature_map, (16, 16))
    torch.testing.assert_close(upsampled[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-4)
    modulation = torch.tensor(2.0).sigmoid()
    branches = decoder.receptive_field_broadening.branches
    passed = torch.cat([branch(feature_map) for branch in branches], dim=1)
    torch.testing.assert_close(passed, modulation * feature_map, rtol=1e-4, atol=1e-4)


def test_pixel_classifiers_train_and_leave_predictions_alone():
    torch.manual_seed(0)
    model = tiny_model(pixel_loss_weight=2.0).train()
    outputs = model(torch.randn(2, 3, 64, 64), labels=block_labels(2, 64, 64))
    outputs.loss.backward()
    assert outputs.loss_dict["loss_pixel"] > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.pixel_classifiers.parameters())
    plain = tiny_model()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "pixel_classifiers" not in k})
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(pixel_values).logits, plain.eval()(pixel_values).logits)


# ---------------------------------------------------------------- mask-piloted training


def piloted_queries(counts: list[int], most: int = 3) -> MaSSFormerPilotedQueries:
    """Draw piloted queries for images of 64 x 96 with some numbers of classes, padded to `most`."""
    hidden_states = torch.randn(len(counts), most, 16)
    masks = (torch.rand(len(counts), most, 64, 96) < 0.002).float()
    for image, count in enumerate(counts):
        masks[image, count:] = 0
    return MaSSFormerPilotedQueries(hidden_states, masks)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_nothing_leaks_from_piloted_queries(attention):
    model = tiny_model(mask_piloted=True)
    model.set_attn_implementation(attention)
    pixel_values, piloted = torch.randn(2, 3, 64, 96), piloted_queries([3, 1])

    def run(queries):
        torch.manual_seed(1)
        outputs = model.model(pixel_values, piloted=queries)
        return torch.stack((*outputs.intermediate_hidden_states, *outputs.mask_embeddings))

    alone, together = run(None), run(piloted)
    torch.testing.assert_close(together[:, :, :9], alone, rtol=1e-5, atol=1e-5)
    # The same shapes give the same rounding, so that not a bit may differ.
    changed = MaSSFormerPilotedQueries(piloted.hidden_states.clone(), piloted.masks)
    changed.hidden_states[1, 1:] += 1
    padding_changed = run(changed)
    assert torch.equal(padding_changed[:, 0], together[:, 0])
    assert torch.equal(padding_changed[:, 1, :10], together[:, 1, :10])
    changed.hidden_states[0, 0] += 1
    query_changed = run(changed)
    assert torch.equal(query_changed[:, :, :9], together[:, :, :9])
    # Piloted queries of an image see each other; the second image's are not affected.
    assert (query_changed[-1, 0, 9:] != together[-1, 0, 9:]).any(dim=-1).all()
    assert torch.equal(query_changed[:, 1], padding_changed[:, 1])


@torch.no_grad()
def test_piloted_queries_read_within_the_true_masks(monkeypatch):
    monkeypatch.setattr(modeling_massformer, "POINT_NOISE", 0.0)
    model = tiny_model(mask_piloted=True)
    model.set_attn_implementation("eager")
    piloted = piloted_queries([3, 2])
    outputs = model.model(torch.randn(2, 3, 64, 96), piloted=piloted, output_attentions=True)
    for attention, factor in zip(outputs.attentions, (32, 16, 8, 32), strict=True):
        inside = F.avg_pool2d(piloted.masks, factor).flatten(2) > 0
        inside[1, 2] = True  # Padding has no mask.
        assert torch.equal(attention[:, :, 9:] > 0, inside[:, None].expand(-1, 2, -1, -1))


def test_point_noise_is_a_share_of_the_mask_s_area():
    masks = torch.zeros(1, 3, 100, 100)
    masks[0, 1, :20], masks[0, 2] = 1, 1
    changed = (modeling_massformer.add_point_noise(masks) != (masks > 0)).float()
    torch.testing.assert_close(changed.mean(dim=(2, 3))[0], torch.tensor([0.0, 0.04, 0.2]), rtol=0.2, atol=0)
    assert changed[0, 1, 20:].sum() > 0


@pytest.mark.parametrize("overrides", [{}, {"num_queries": 7, "matching": "fixed", "use_auxiliary_loss": False}])
@pytest.mark.parametrize("num_classes", [(3, 0), (0, 0)])
def test_piloted_losses_have_the_known_assignment(overrides, num_classes, monkeypatch):
    monkeypatch.setattr(modeling_massformer, "LABEL_NOISE", 0.0)
    model = tiny_model(mask_piloted=True, **overrides).train()
    pixel_values, labels = torch.randn(2, 3, 64, 96), torch.full((2, 64, 96), 255)
    for image, count in enumerate(num_classes):
        labels[image, 8:40] = 2 * (torch.arange(96) * count // 96) if count else 255
    seen = []
    model.model.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(pixel_values, labels=labels, annotated_classes=torch.ones(2, 7, dtype=torch.bool))
    outputs.loss.backward()
    torch.testing.assert_close(outputs.loss, torch.stack([*outputs.loss_dict.values()]).sum())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    names = [f"loss_{x}_piloted" for x in ("cross_entropy", "mask", "dice")]
    steps = [] if overrides else [f"_{step}" for step in range(4)]
    expected = {f"{name}{suffix}" for name in names for suffix in ("", *steps)}
    assert {name for name in outputs.loss_dict if "piloted" in name} == expected
    # One query for each class of the image: a mean over the classes 0, 2 and 4, without padding and "no object".
    present = [0, 2, 4][: num_classes[0]]
    gradients = model.class_embeddings.weight.grad.abs().sum(dim=1) > 0
    assert gradients.nonzero().flatten().tolist() == present
    assert all((outputs.loss_dict[name] > 0) == bool(present) for name in names)
    assert outputs.class_queries_logits.shape[1] == outputs.masks_queries_logits.shape[1] == model.config.num_queries
    if present:
        states = seen[0].intermediate_hidden_states[-1][0, model.config.num_queries :]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model.class_predictor(states).float()
        loss = 2 * F.cross_entropy(logits, torch.tensor(present))
        torch.testing.assert_close(outputs.loss_dict[names[0]], loss.detach())


def test_label_noise_changes_a_fifth_of_the_queries():
    torch.manual_seed(0)
    model = tiny_model(mask_piloted=True)
    labels = torch.arange(7).repeat(300, 1, 32).reshape(300, 7, 32)
    kept = model.piloted_queries(labels).hidden_states == model.class_embeddings.weight
    # One in seven random classes is the true one.
    assert kept.all(dim=-1).float().mean().item() == pytest.approx(1 - 0.2 * 6 / 7, abs=0.03)


def test_mask_piloted_training_adds_an_embedding_that_evaluation_ignores():
    model, plain = tiny_model(mask_piloted=True), tiny_model()
    weights = model.state_dict()
    assert weights.keys() - plain.state_dict().keys() == {"class_embeddings.weight"}
    plain.load_state_dict({name: value for name, value in weights.items() if name != "class_embeddings.weight"})
    arguments = {"pixel_values": torch.randn(2, 3, 64, 64), "labels": block_labels(2, 64, 64)}
    results = []
    for each in (model, plain):
        torch.manual_seed(1)
        results.append(each(**arguments))
    assert results[0].loss_dict.keys() == results[1].loss_dict.keys()
    assert torch.equal(results[0].loss, results[1].loss)
    assert torch.equal(results[0].logits, results[1].logits)


def test_labels_of_another_size_are_refused_before_they_become_queries():
    model = tiny_model(mask_piloted=True).train()
    with pytest.raises(ValueError, match="one class index per pixel"):
        model(torch.randn(2, 3, 64, 64), labels=block_labels(3, 64, 64))


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_survive_saving(variant, tmp_path):
    config = variant_config(variant)
    config.save_pretrained(tmp_path)
    before, after = config.to_dict(), AutoConfig.from_pretrained(tmp_path).to_dict()
    for fields in (before, after):
        fields.pop("_name_or_path", None)
        fields["backbone_config"].pop("_name_or_path", None)
    assert before == after


def test_the_base_model_loads_from_a_complete_checkpoint(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is MaSSFormerModel
    assert all(torch.equal(value, base.state_dict()[name]) for name, value in model.model.state_dict().items())


@needs_torch_2_8
def test_compile_without_graph_breaks():
    model = tiny_model()
    pixel_values = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(pixel_values)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(pixel_values)
    torch.testing.assert_close(compiled.masks_queries_logits, expected.masks_queries_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(compiled.class_queries_logits, expected.class_queries_logits, rtol=1e-4, atol=1e-4)


@needs_torch_2_8
def test_two_passes_are_exported_for_any_batch():
    torch.manual_seed(0)
    model, pixel_values = tiny_model(context_size=96, return_dict=False), torch.randn(3, 3, 160, 128)
    with torch.no_grad():
        expected = model(pixel_values)[1]
        batch = {"pixel_values": {0: torch.export.Dim("batch", min=1, max=64)}}
        exported = torch.export.export(model, (pixel_values[:2],), dynamic_shapes=batch)
        torch.testing.assert_close(exported.module()(pixel_values)[1], expected, rtol=1e-4, atol=1e-4)


def test_trainer_takes_nothing_but_labels_for_labels():
    assert find_labels(MaSSFormerForSemanticSegmentation) == ["labels"]


@needs_torch_2_8
@pytest.mark.parametrize(
    ("context_size", "sizes"),
    # The windows of the first size do not fit its map; those of the third do.
    [(None, ((160, 192), (96, 352), (128, 128))), (160, ((160, 192), (192, 352), (128, 128)))],
)
def test_an_export_for_any_size_runs_at_other_sizes(context_size, sizes):
    model = tiny_model(context_size=context_size)
    sides = {2: 32 * torch.export.Dim("rows", min=2, max=256), 3: 32 * torch.export.Dim("columns", min=2, max=256)}
    with torch.no_grad():
        exported = torch.export.export(model, (torch.randn(1, 3, 160, 192),), dynamic_shapes={"pixel_values": sides})
        for height, width in sizes:
            pixel_values = torch.randn(1, 3, height, width)
            actual, expected = exported.module()(pixel_values), model(pixel_values)
            for name in ("class_queries_logits", "masks_queries_logits", "edge_logits"):
                torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=1e-4)


def train_a_narrow_backbone():
    """Take a step whose gradient, in another memory format, oneDNN would write beyond its memory."""
    backbone = {"model_type": "resnet", "depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "embedding_size": 8}
    backbone |= {"layer_type": "basic", "out_features": [f"stage{index}" for index in range(1, 5)]}
    model = tiny_model(backbone_config=backbone).train()
    for _ in range(2):
        model(torch.randn(2, 3, 256, 256), labels=block_labels(2, 256, 256)).loss.backward()


def test_narrow_backbones_train_on_cpus(tmp_path):
    # In a process of its own, since a crash would end this one.
    run_in_processes(train_a_narrow_backbone, (), tmp_path, processes=1)
