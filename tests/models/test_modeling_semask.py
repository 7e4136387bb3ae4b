import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from support.golden import DATA, golden_labels, golden_pixel_values, semask_golden_state_dict, subsample
from support.tiny import (
    STAGES,
    TINY_RESNET,
    TINY_SEMASK,
    TINY_SWIN,
    block_labels,
    tiny_model,
    tiny_semask,
)
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForSemanticSegmentation,
    pipeline,
)

from transformers_massformer import (
    SeMaskConfig,
    SeMaskForSemanticSegmentation,
    SeMaskImageProcessor,
    SeMaskSwinBackbone,
    SeMaskSwinConfig,
    SeMaskSwinModel,
)
from transformers_massformer.conversion import (
    convert_semask_checkpoint,
    convert_semask_state_dict,
    semask_variant_config,
)
from transformers_massformer.inference.loading import auto_class
from transformers_massformer.models.modeling_semask_swin import SeMaskSwinSemanticLayer
from transformers_massformer.models.semantic_prior import pixel_cross_entropy, sum_semantic_maps


# ---------------------------------------------------------------- parity with the authors' code


@pytest.fixture(scope="module")
def golden():
    return np.load(DATA / "semask_tiny7.npz")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    torch.save({"state_dict": semask_golden_state_dict()}, folder / "release.pth")
    return convert_semask_checkpoint(folder / "release.pth", "semask-swin-t", folder / "converted")


def stored(golden, name: str, value: torch.Tensor) -> np.ndarray:
    """Select the part of a tensor that the golden file stores."""
    if golden[name].shape == tuple(value.shape):
        return value.detach().numpy()
    for limit in (2048, 4096, 8192, 16384):
        part = subsample(value, limit)
        if part.numel() == golden[name].size:
            return part.detach().numpy()
    raise AssertionError(f"{name}: {tuple(value.shape)} is not {golden[name].shape}")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_golden_parity(golden, converted, attention):
    model = SeMaskForSemanticSegmentation.from_pretrained(converted, attn_implementation=attention)
    captured = {}

    def capture(name, module, index=...):
        module.register_forward_hook(lambda m, a, output: captured.update({name: output[index]}))

    swin = model.backbone.swin
    embeddings = swin.embeddings
    embeddings.register_forward_hook(
        lambda m, a, output: captured.update(patch_embed=output[0].transpose(1, 2).unflatten(2, output[1]))
    )
    for index, stage in enumerate(swin.encoder.layers):
        for block, layer in enumerate(stage.blocks):
            capture(f"swin_{index}_{block}", layer, 0)
        capture(f"semantic_norm_{index}", stage.semantic_layer.layernorm)
        capture(f"semantic_out_{index}", stage.semantic_layer, 0)
        if stage.downsample is not None:
            capture(f"merge_{index}", stage.downsample)
        capture(f"fpn_{index}", model.head.branches[index])
    model.head.dropout.register_forward_hook(lambda m, arguments, output: captured.update(fpn_sum=arguments[0]))
    model.backbone.register_forward_hook(
        lambda m, a, output: captured.update({f"stage_{i}": x for i, x in enumerate(output.feature_maps)})
    )
    pixel_values = golden_pixel_values(256, 256, [201])
    assert np.array_equal(subsample(pixel_values, 4096).numpy(), golden["pixel_values"])
    with torch.no_grad():
        outputs = model(pixel_values)
    captured |= {f"semantic_map_{index}": x for index, x in enumerate(outputs.semantic_maps)}
    captured |= {"logits": outputs.logits, "semantic_logits": outputs.semantic_logits}
    captured["logits_input"] = F.interpolate(outputs.logits, size=(256, 256), mode="bilinear", align_corners=False)
    compared = set(golden.files) - {"pixel_values", "labels", "weights_sum", "weights_sqsum"}
    compared = {name for name in compared if not name.startswith(("loss", "grad")) and "argmax" not in name}
    assert captured.keys() == compared
    for name in compared:
        difference = np.abs(stored(golden, name, captured[name]) - golden[name]).max()
        assert difference < 2e-4, (name, difference)

    processor = AutoImageProcessor.from_pretrained(converted)
    (label_map,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(256, 256)])
    assert (label_map.numpy() != golden["argmax_input"].reshape(256, 256)).sum() <= 3
    assert np.array_equal(outputs.logits.argmax(1).numpy(), golden["argmax"].reshape(1, 64, 64))
    semantic = outputs.semantic_logits.argmax(1).numpy()
    assert (semantic != golden["semantic_argmax"].reshape(1, 64, 64)).sum() <= 3


def test_golden_losses_and_gradients(golden, converted):
    model = SeMaskForSemanticSegmentation.from_pretrained(converted)
    labels = torch.from_numpy(golden_labels(256, 256, 301, 20).astype(np.int64))[None]
    assert np.array_equal(subsample(labels, 4096).numpy(), golden["labels"])
    outputs = model(golden_pixel_values(256, 256, [201]), labels=labels)
    assert outputs.loss_dict["loss_cross_entropy"].item() == pytest.approx(float(golden["loss_ce"]), abs=1e-5)
    assert outputs.loss_dict["loss_semantic"].item() == pytest.approx(float(golden["loss_cate"]), abs=1e-5)
    assert outputs.loss.item() == pytest.approx(float(golden["loss_ce"] + golden["loss_cate"]), abs=1e-5)
    outputs.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    gammas = [value.item() for name, value in gradients.items() if name.endswith("gamma")]
    assert np.allclose(gammas, golden["grad_gamma"], rtol=2e-3)
    # Norms by the release's names; each of its tensors corresponds to one or three here.
    release = semask_golden_state_dict()
    names = {name: convert_semask_state_dict({name: value}) for name, value in release.items()}
    keys = [name for name, _ in json.loads((DATA / "semask_keys_tiny7.json").read_text())]
    for name, expected in zip(keys, golden["grad_norm"].tolist(), strict=True):
        if not math.isnan(expected):
            norm = torch.stack([gradients[ours].norm() for ours in names[name]]).norm().item()
            assert norm == pytest.approx(expected, rel=2e-3, abs=1e-5), name


# ---------------------------------------------------------------- against a literal loop


def literal_attention(block, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute SeMask attention over one sequence, token by token (Eq. 1 and 2)."""
    queries, keys, values = block.q_proj(tokens), block.k_proj(tokens), block.v_proj(tokens)
    attended = []
    for query in queries:
        scores = torch.stack([(query * key).sum() for key in keys])
        weights = scores.exp() / scores.exp().sum()
        attended.append(sum(weight * value for weight, value in zip(weights, values, strict=True)))
    return queries, tokens + block.gamma * block.o_proj(torch.stack(attended))


def literal_layer(layer, tokens: torch.Tensor, height: int, width: int, window: int | None):
    """Compute the semantic layer on one image, window by window."""
    tokens = layer.layernorm(tokens).reshape(height, width, -1)
    if window is None:
        flat = tokens.flatten(0, 1)
        for block in layer.blocks:
            queries, flat = literal_attention(block, flat)
        return flat, queries
    rows, columns = -(-height // window), -(-width // window)
    padded = torch.zeros(rows * window, columns * window, tokens.shape[-1], dtype=tokens.dtype)
    padded[:height, :width] = tokens
    maps = torch.zeros(*padded.shape[:2], layer.blocks[0].q_proj.out_features, dtype=tokens.dtype)
    for row in range(rows):
        for column in range(columns):
            place = slice(row * window, (row + 1) * window), slice(column * window, (column + 1) * window)
            flat = padded[place].flatten(0, 1)
            for block in layer.blocks:
                queries, flat = literal_attention(block, flat)
            padded[place], maps[place] = flat.unflatten(0, (window, window)), queries.unflatten(0, (window, window))
    return padded[:height, :width].flatten(0, 1), maps[:height, :width].flatten(0, 1)


@torch.no_grad()
@pytest.mark.parametrize("num_labels", [3, 40], ids=["few", "more-than-channels"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("is_global", [False, True], ids=["window", "global"])
@pytest.mark.parametrize("size", [(5, 7), (4, 4), (2, 9)])
def test_the_semantic_layer_is_the_paper_s(num_labels, depth, is_global, size):
    config = SeMaskSwinConfig(num_semantic_labels=num_labels, semantic_window_size=4)
    layer = SeMaskSwinSemanticLayer(config, 8, depth, is_global).double().eval()
    for name, parameter in layer.named_parameters():
        torch.nn.init.normal_(parameter, std=0.2 if name.endswith("bias") else 0.5)
    tokens = torch.randn(2, size[0] * size[1], 8, dtype=torch.float64)
    outputs, maps = layer(tokens, size)
    for index in range(2):
        expected, expected_map = literal_layer(layer, tokens[index], *size, None if is_global else 4)
        assert torch.allclose(outputs[index], expected, atol=1e-6)
        assert torch.allclose(maps[index], expected_map, atol=1e-6)


def test_the_loss_counts_ignored_pixels_as_nothing():
    logits, labels = torch.randn(2, 3, 2, 2, dtype=torch.float64), torch.randint(0, 3, (2, 4, 4))
    labels[0, 0] = 255
    enlarged = F.interpolate(logits, size=(4, 4), mode="bilinear", align_corners=False)
    losses = []
    for image in range(2):
        for row in range(4):
            for column in range(4):
                if labels[image, row, column] != 255:
                    scores = enlarged[image, :, row, column].exp()
                    losses.append(-math.log(scores[labels[image, row, column]] / scores.sum()))
    assert pixel_cross_entropy(logits, labels, 255).item() == pytest.approx(sum(losses) / 32, abs=1e-6)
    hardest = sum(sorted(losses)[-6:])
    assert pixel_cross_entropy(logits, labels, 255, 3).item() == pytest.approx(hardest / 32, abs=1e-6)
    labels[1, 2, 2] = 3
    with pytest.raises(ValueError, match=r"outside the classes: \[3\].*num_semantic_labels"):
        pixel_cross_entropy(logits, labels, 255)


def test_semantic_maps_are_doubled_and_summed():
    maps = [torch.randn(1, 2, *size) for size in ((13, 9), (7, 5), (4, 3), (2, 2))]
    expected = maps[0].clone()
    for times, each in enumerate(maps[1:], start=1):
        for _ in range(times):
            each = F.interpolate(each, size=(2 * each.shape[2], 2 * each.shape[3]), mode="bilinear")
        expected += F.interpolate(each, size=(13, 9), mode="bilinear")
    assert torch.allclose(sum_semantic_maps(maps), expected, atol=1e-6)


# ---------------------------------------------------------------- the backbone


@torch.no_grad()
def test_without_gamma_it_is_swin(tmp_path):
    swin = AutoBackbone.from_config(AutoConfig.for_model(**TINY_SWIN)).eval()
    for parameter in swin.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    swin.save_pretrained(tmp_path)
    config = SeMaskSwinConfig(**{k: v for k, v in TINY_SEMASK.items() if k != "model_type"})
    backbone, info = SeMaskSwinBackbone.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert all("semantic_layer" in name for name in info["missing_keys"])
    pixel_values = torch.randn(2, 3, 70, 54)
    outputs = backbone.eval()(pixel_values)
    plain = swin.swin(
        pixel_values, always_partition=True, output_hidden_states_before_downsampling=True, output_hidden_states=True
    )
    # Both are equal before the first semantic layer, which returns the normalized tokens.
    blocks = plain.reshaped_hidden_states[1].movedim(1, -1)
    normalised = F.layer_norm(blocks, blocks.shape[-1:], eps=1e-5).movedim(-1, 1)
    semantic = backbone(pixel_values, output_hidden_states=True).hidden_states[1]
    assert torch.equal(semantic, normalised)
    assert [tuple(x.shape[-2:]) for x in outputs.feature_maps] == [(18, 14), (9, 7), (5, 4), (3, 2)]


def test_both_branches_of_a_block_are_dropped():
    model = tiny_semask({"drop_path_rate": 0.999999}).train()
    layer = model.backbone.swin.encoder.layers[3].blocks[0]
    tokens = torch.randn(3, 16, 64)
    assert torch.equal(layer(tokens, (4, 4), always_partition=True)[0], tokens)
    assert not torch.equal(layer.eval()(tokens, (4, 4), always_partition=True)[0], tokens)


def test_four_stages_are_the_default_of_models_and_the_last_of_the_backbone(tmp_path):
    assert SeMaskSwinConfig().out_features == ["stage4"]
    assert SeMaskConfig().backbone_config.out_features == STAGES
    SeMaskSwinConfig(out_indices=[2, 4]).save_pretrained(tmp_path)
    assert SeMaskSwinConfig.from_pretrained(tmp_path).out_features == ["stage2", "stage4"]
    config = SeMaskConfig(backbone_config=SeMaskSwinConfig(embed_dim=48, out_features=STAGES))
    assert config.backbone_config.embed_dim == 48


def test_a_plain_swin_checkpoint_is_loaded_without_a_configuration(tmp_path):
    fields = {name: value for name, value in TINY_SWIN.items() if name != "out_features"}
    AutoModel.from_config(AutoConfig.for_model(**fields)).save_pretrained(tmp_path)
    model, info = SeMaskSwinModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert all("semantic_layer" in name for name in info["missing_keys"])
    assert model.config.model_type == "semask_swin"


def test_what_is_added_is_learned_although_its_weight_starts_at_zero():
    backbone = {**TINY_SEMASK, "drop_path_rate": 0.0}
    model = SeMaskForSemanticSegmentation(SeMaskConfig(backbone_config=backbone, hidden_size=16)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        model.zero_grad()
        model(torch.randn(2, 3, 64, 64), labels=block_labels(2, 64, 64)).loss.backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        if not name.endswith("k_proj.bias"):
            assert parameter.grad.abs().max() > 0, name


def test_only_some_stages_are_returned_on_request():
    config = SeMaskSwinConfig(**{**TINY_SEMASK, "out_features": ["stage2", "stage4"]})
    backbone = AutoBackbone.from_config(config)
    outputs = backbone(torch.randn(1, 3, 64, 64))
    assert [x.shape[1] for x in outputs.feature_maps] == backbone.channels == [16, 64]
    assert len(outputs.semantic_maps) == 4
    assert outputs.hidden_states is None


# ---------------------------------------------------------------- the model


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("semask-swin-t", 34.66), ("semask-swin-s", 55.97), ("semask-swin-b", 96.49), ("semask-swin-l", 210.79)],
)
def test_parameter_counts(variant, parameters):
    with torch.device("meta"):
        model = SeMaskForSemanticSegmentation(semask_variant_config(variant, 150))
    assert round(model.num_parameters() / 1e6, 2) == parameters
    expected = ["window"] * 4 if variant == "semask-swin-b" else ["window", "window", "global", "global"]
    assert model.config.backbone_config.semantic_attention == expected


def test_a_photograph_goes_through_the_pipeline(tmp_path):
    tiny_semask().save_pretrained(tmp_path)
    SeMaskImageProcessor().save_pretrained(tmp_path)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (51, 75, 3), dtype=np.uint8))
    found = pipeline("image-segmentation", model=str(tmp_path))(photo)
    assert found
    assert all(each["mask"].size == (75, 51) for each in found)
    assert sum(np.asarray(each["mask"]).astype(bool).sum() for each in found) == 51 * 75


def test_logits_go_straight_to_the_size_of_the_photograph():
    model, processor = tiny_semask(), SeMaskImageProcessor()
    image = np.random.default_rng(0).integers(0, 255, (51, 75, 3), dtype=np.uint8)
    inputs = processor(image, return_tensors="pt")
    assert inputs.pixel_values.shape[-2:] == (51, 75)
    with torch.no_grad():
        outputs = model(**inputs)
    expected = F.interpolate(outputs.logits, size=(51, 75), mode="bilinear", align_corners=False)[0]
    (read,) = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[(51, 75)], return_segmentation_scores=True
    )
    assert torch.allclose(read.segmentation_scores, expected.softmax(0), atol=1e-5)
    assert (read.segmentation != expected.argmax(0)).sum() == 0


def test_a_plain_backbone_makes_a_semantic_fpn():
    config = SeMaskConfig(backbone_config=TINY_RESNET, hidden_size=16)
    outputs = SeMaskForSemanticSegmentation(config).eval()(
        torch.randn(1, 3, 64, 64), labels=torch.zeros(1, 64, 64, dtype=torch.int64)
    )
    assert outputs.semantic_logits is None
    assert set(outputs.loss_dict) == {"loss_cross_entropy"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"semantic_depths": [1, 0, 1, 1]}, "at least 1 in every stage"),
        ({"semantic_attention": ["window", "all", "window", "window"]}, r"\['all'\]; choose from"),
        ({"semantic_attention": ["window"]}, "an entry for each of the 4 stages"),
        ({"num_semantic_labels": 0}, "num_semantic_labels"),
    ],
)
def test_configurations_that_cannot_be_are_refused(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        SeMaskSwinConfig(**fields)


def test_semantic_maps_have_the_model_s_classes_unless_told():
    assert SeMaskConfig(num_labels=19).backbone_config.num_semantic_labels == 19
    assert SeMaskConfig(backbone_config={"model_type": "semask_swin"}, num_labels=3).backbone_config.out_features
    config = SeMaskConfig(backbone_config={**TINY_SEMASK, "num_semantic_labels": 150}, num_labels=171)
    assert config.backbone_config.num_semantic_labels == 150
    assert len(config.id2label) == 171


# ---------------------------------------------------------------- inside MaSSFormer


def test_massformer_learns_the_semantic_maps_of_its_backbone():
    model = tiny_model(backbone_config=TINY_SEMASK)
    labels, pixel_values = block_labels(2, 64, 64), torch.randn(2, 3, 64, 64)
    outputs = model(pixel_values, labels=labels)
    expected = 0.4 * pixel_cross_entropy(sum_semantic_maps(outputs.semantic_maps), labels, 255)
    assert outputs.loss_dict["loss_semantic"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert outputs.loss.item() == pytest.approx(sum(outputs.loss_dict.values()).item(), rel=1e-6)
    assert [x.shape[1] for x in outputs.semantic_maps] == [7] * 4
    assert tiny_model()(pixel_values, labels=labels).semantic_maps is None
    with torch.no_grad():
        assert model(pixel_values).semantic_maps is not None


@pytest.mark.filterwarnings("ignore:You'd better set embed_dim:UserWarning")
@pytest.mark.parametrize("kind", ["maskformer", "mask2former", "upernet"])
def test_it_is_a_backbone_for_models_of_the_library(kind):
    fields = {
        "maskformer": {"fpn_feature_size": 32, "mask_feature_size": 32},
        "mask2former": {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_attention_heads": 2},
        "upernet": {"hidden_size": 16, "auxiliary_in_channels": 32},
    }[kind]
    config = AutoConfig.for_model(kind, backbone_config=dict(TINY_SEMASK), num_labels=7, **fields)
    model = auto_class(config).from_config(config).eval()
    assert any(isinstance(module, SeMaskSwinBackbone) for module in model.modules())
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 64, 64))
    num_classes = outputs.logits.shape[1] if kind == "upernet" else outputs.class_queries_logits.shape[2] - 1
    assert num_classes == 7


# ---------------------------------------------------------------- conversion


def test_what_a_checkpoint_does_not_tell_can_be_told(tmp_path, converted):
    config = AutoConfig.from_pretrained(converted)
    assert config.backbone_config.semantic_attention == ["window"] * 4
    torch.save(semask_golden_state_dict(), tmp_path / "release.pth")
    stages = ["window", "window", "global", "global"]
    folder = convert_semask_checkpoint(
        tmp_path / "release.pth", "semask-swin-t", tmp_path / "other", semantic_attention=stages
    )
    assert AutoConfig.from_pretrained(folder).backbone_config.semantic_attention == stages
    with pytest.raises(FileExistsError, match="already holds a model"):
        convert_semask_checkpoint(tmp_path / "release.pth", "semask-swin-t", folder)
    with pytest.raises(ValueError, match=r"does not fit the model.*missing"):
        convert_semask_checkpoint(tmp_path / "release.pth", "semask-swin-s", tmp_path / "s")
    with pytest.raises(ValueError, match="Unknown variant"):
        convert_semask_checkpoint(tmp_path / "release.pth", "semask-swin-x", tmp_path / "x")


def test_classes_of_semantic_maps_need_not_be_those_of_the_head(tmp_path):
    weights = semask_golden_state_dict()
    for name in ("weight", "bias"):
        value = weights[f"decode_head.conv_seg.{name}"]
        weights[f"decode_head.conv_seg.{name}"] = torch.cat([value, value])
    torch.save(weights, tmp_path / "release.pth")
    folder = convert_semask_checkpoint(tmp_path / "release.pth", "semask-swin-t", tmp_path / "out")
    model = AutoModelForSemanticSegmentation.from_pretrained(folder)
    assert len(model.config.id2label) == 14
    assert model.config.backbone_config.num_semantic_labels == 7
    labels = torch.full((1, 64, 64), 9)
    with pytest.raises(ValueError, match=r"\[9\].*7 classes"):
        model.eval()(torch.zeros(1, 3, 64, 64), labels=labels)
