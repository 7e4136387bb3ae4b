import collections
import datetime
import json
import pickle
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from support.golden import DATA
from transformers.models.swin.modeling_swin import SwinPatchMerging

from transformers_massformer import MaSSFormerForSemanticSegmentation, MaSSFormerImageProcessor
from transformers_massformer.conversion import convert_massformer_checkpoint, load_checkpoint, variant_config
from transformers_massformer.conversion.massformer import convert_massformer_state_dict, reorder_patch_merging


@pytest.fixture
def release_lite():
    """Create weights of the Lite variant by the release's names, all zeros."""
    keys = json.loads((DATA / "official_keys_r18lite.json").read_text())
    return {name: torch.zeros(shape, dtype=torch.int64 if "tracked" in name else None) for name, shape in keys}


def test_plain_nested_and_safetensors_files_are_the_same(tmp_path):
    weights = {"a": torch.arange(4.0)}
    torch.save(weights, tmp_path / "plain.pth")
    torch.save({"state_dict": weights, "meta": {"epoch": 3}}, tmp_path / "nested.pth")
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(weights, tmp_path / "file.safetensors")
    for name in ("plain.pth", "nested.pth", "old.pth", "file.safetensors"):
        loaded = load_checkpoint(tmp_path / name)
        assert loaded.keys() == {"a"}
        assert torch.equal(loaded["a"], weights["a"])


@pytest.fixture
def foreign_checkpoint(tmp_path):
    """Write a file like mmengine's runner does, without mmengine: history buffers, numpy arrays, metadata."""
    name = "mmengine.logging.history_buffer"
    module = types.ModuleType(name)
    packages = {"mmengine": types.ModuleType("mmengine"), "mmengine.logging": types.ModuleType("mmengine.logging")}

    class HistoryBuffer:
        def __init__(self):
            self._log_history = np.arange(3.0)
            self._count_history = np.ones(3, dtype=np.int64)
            self._max_length = np.float64(100)

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = name, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer
    sys.modules.update(packages | {name: module})
    try:
        torch.save(
            {
                "meta": {"iter": 80000, "seed": np.int64(7), "classes": ("others", "human")},
                "state_dict": collections.OrderedDict(a=torch.arange(3.0)),
                "message_hub": {
                    "log_scalars": collections.OrderedDict(loss=HistoryBuffer()),
                    "runtime_info": collections.OrderedDict(loss=np.float32(0.5)),
                },
            },
            tmp_path / "mmengine.pth",
        )
    finally:
        for key in (*packages, name):
            del sys.modules[key]
    return tmp_path / "mmengine.pth"


def test_foreign_objects_beside_the_weights_stay_inert(foreign_checkpoint):
    assert "mmengine" not in sys.modules
    loaded = load_checkpoint(foreign_checkpoint)
    assert torch.equal(loaded["a"], torch.arange(3.0))
    assert "mmengine" not in sys.modules


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_by_name_and_not_run(tmp_path, capfd, zipped):
    torch.save(
        {"state_dict": {"a": torch.zeros(1)}, "x": Harmful()},
        tmp_path / "x.pth",
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(ValueError, match=r"cannot be loaded without running code.*print"):
        load_checkpoint(tmp_path / "x.pth")
    assert "executed" not in capfd.readouterr().out


def test_other_globals_are_refused_by_name(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": datetime.timedelta(1)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"it refers to datetime.timedelta"):
        load_checkpoint(tmp_path / "x.pth")


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*nothing.pth"):
        load_checkpoint(tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("text.pth", "empty.pth", "text.safetensors"):
        with pytest.raises(ValueError, match=name):
            load_checkpoint(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="contains no weights"):
        load_checkpoint(tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    with pytest.raises(ValueError, match=r"other than tensors among its weights: \['epoch'\]"):
        load_checkpoint(tmp_path / "numbers.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="pickle.pth"):
        load_checkpoint(tmp_path / "pickle.pth")


def test_weights_of_older_code_are_left_out_and_named(release_lite, monkeypatch):
    extra = {
        "decode_head.pixel_decoder.pixel_decoder.LSE.sep.conv.weight": torch.zeros(1),
        "decode_head.pixel_decoder.pixel_decoder.out.4.conv.weight": torch.zeros(1),
    }
    messages = []
    monkeypatch.setattr("transformers_massformer.conversion.massformer.logger.warning", messages.append)
    assert (
        convert_massformer_state_dict(release_lite | extra).keys()
        == convert_massformer_state_dict(release_lite).keys()
    )
    assert all(name in messages[0] for name in extra)


def test_missing_unknown_and_misshapen_weights_are_listed(release_lite, tmp_path):
    decoder = "decode_head.pixel_decoder.pixel_decoder."
    del release_lite[decoder + "LSE.conv1.bias"]
    release_lite[decoder + "LSE.conv9.bias"] = torch.zeros(1)
    release_lite["decode_head.mask_embed.0.weight"] = torch.zeros(3, 4)
    torch.save(release_lite, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="does not fit the model") as error:
        convert_massformer_checkpoint(tmp_path / "x.pth", "r18-lite", tmp_path / "out")
    message = str(error.value)
    assert "missing (1): model.pixel_decoder.low_level_structure.pointwise_attention.convolution.bias" in message
    assert "unknown (1): model.pixel_decoder.LSE.conv9.bias" in message or "low_level_structure.conv9.bias" in message
    assert "model.transformer_decoder.mask_embedder.fc1.weight is (3, 4), expected (128, 128)" in message
    assert not (tmp_path / "out").exists()


def test_the_wrong_variant_and_a_full_folder_are_refused(release_lite, tmp_path):
    torch.save(release_lite, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="Is it the right variant"):
        convert_massformer_checkpoint(tmp_path / "x.pth", "r50", tmp_path / "out")
    with pytest.raises(ValueError, match="Unknown variant 'r101'; choose one of r50"):
        convert_massformer_checkpoint(tmp_path / "x.pth", "r101", tmp_path / "out")
    convert_massformer_checkpoint(tmp_path / "x.pth", "r18-lite", tmp_path / "out")
    with pytest.raises(FileExistsError, match="already holds a model"):
        convert_massformer_checkpoint(tmp_path / "x.pth", "r18-lite", tmp_path / "out")
    convert_massformer_checkpoint(tmp_path / "x.pth", "r18-lite", tmp_path / "out", overwrite=True)


def test_other_numbers_of_classes_follow_the_weights(release_lite, tmp_path):
    release_lite["decode_head.cls_embed.weight"] = torch.zeros(4, 128)
    release_lite["decode_head.cls_embed.bias"] = torch.zeros(4)
    torch.save(release_lite, tmp_path / "x.pth")
    folder = convert_massformer_checkpoint(tmp_path / "x.pth", "r18-lite", tmp_path / "out")
    assert MaSSFormerForSemanticSegmentation.from_pretrained(folder).config.num_labels == 3
    assert MaSSFormerImageProcessor.from_pretrained(folder).num_labels == 3


def release_swin_names(model) -> dict[str, torch.Tensor]:
    """Write a model's Swin weights by mmdetection's names, independently of the converter."""
    state = model.model.backbone.state_dict()
    release = {
        "patch_embed.projection.weight": state["swin.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.projection.bias": state["swin.embeddings.patch_embeddings.projection.bias"],
        "patch_embed.norm.weight": state["swin.embeddings.norm.weight"],
        "patch_embed.norm.bias": state["swin.embeddings.norm.bias"],
    }
    for stage, depth in enumerate(model.config.backbone_config.depths):
        for kind in ("weight", "bias"):
            release[f"norm{stage}.{kind}"] = state[f"hidden_states_norms.stage{stage + 1}.{kind}"]
        for block in range(depth):
            ours, theirs = f"swin.encoder.layers.{stage}.blocks.{block}.", f"stages.{stage}.blocks.{block}."
            table = state[ours + "attention.relative_position_bias.relative_position_bias_table"]
            release[theirs + "attn.w_msa.relative_position_bias_table"] = table
            release[theirs + "attn.w_msa.relative_position_index"] = torch.zeros(2, 2, dtype=torch.int64)
            for kind in ("weight", "bias"):
                projections = [state[f"{ours}attention.{x}_proj.{kind}"] for x in "qkv"]
                release[f"{theirs}attn.w_msa.qkv.{kind}"] = torch.cat(projections)
                release[f"{theirs}attn.w_msa.proj.{kind}"] = state[f"{ours}attention.o_proj.{kind}"]
                release[f"{theirs}norm1.{kind}"] = state[f"{ours}layernorm_before.{kind}"]
                release[f"{theirs}norm2.{kind}"] = state[f"{ours}layernorm_after.{kind}"]
                release[f"{theirs}ffn.layers.0.0.{kind}"] = state[f"{ours}mlp.fc1.{kind}"]
                release[f"{theirs}ffn.layers.1.{kind}"] = state[f"{ours}mlp.fc2.{kind}"]
        if stage < 3:
            merge = f"swin.encoder.layers.{stage}.downsample."
            for name in ("reduction.weight", "norm.weight", "norm.bias"):
                value = state[merge + name]
                columns = torch.arange(value.shape[-1]).reshape(2, 2, -1).permute(2, 1, 0).flatten()
                release[f"stages.{stage}.downsample.{name}"] = value[..., columns]
    return {f"backbone.{name}": value for name, value in release.items()}


@pytest.mark.parametrize("window_size", [4, 7])
def test_swin_weights_by_mmdetection_s_names(window_size):
    config = variant_config("swin-t")
    config.backbone_config.window_size = window_size
    config.backbone_config.depths = [1, 1, 2, 1]
    model = MaSSFormerForSemanticSegmentation(config)
    torch.nn.init.normal_(model.model.backbone.swin.encoder.layers[0].downsample.norm.weight)
    converted = convert_massformer_state_dict(release_swin_names(model))
    expected = {name: v for name, v in model.state_dict().items() if name.startswith("model.backbone.")}
    assert converted.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(converted[name], value), name


def test_patch_merging_against_unfold():
    """Check that reordered weights give in transformers what mmdetection computes with `unfold`."""
    channels, height, width = 3, 4, 6
    gamma, beta, reduction = torch.randn(12), torch.randn(12), torch.randn(6, 12)
    feature_map = torch.randn(2, channels, height, width)
    unfolded = F.unfold(feature_map, kernel_size=2, stride=2).transpose(1, 2)
    expected = F.layer_norm(unfolded, (12,), gamma, beta) @ reduction.T

    merging = SwinPatchMerging(channels)
    merging.norm.weight.data, merging.norm.bias.data = reorder_patch_merging(gamma), reorder_patch_merging(beta)
    merging.reduction.weight.data = reorder_patch_merging(reduction)
    actual = merging(feature_map.flatten(2).transpose(1, 2), (height, width))
    torch.testing.assert_close(actual, expected)
