"""Loading of models with adapters of peft."""

import json

import pytest
import torch
from support.commands import run
from support.tiny import tiny_model
from support.tiny_data import smooth_photo as photo
from support.tiny_data import write_pair

from transformers_massformer import MaSSFormerForSemanticSegmentation, MaSSFormerImageProcessor
from transformers_massformer.inference.loading import load_model
from transformers_massformer.training.models import load_for_training


peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ADAPTERS = {
    "attention": {"target_modules": ["q_proj", "v_proj"]},
    "embeddings": {"target_modules": ["query_features", "level_embeddings"]},
    "saved modules": {"target_modules": ["q_proj"], "modules_to_save": ["class_predictor", "normalization"]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    tiny_model().save_pretrained(folder)
    MaSSFormerImageProcessor().save_pretrained(folder)
    return folder


def adapted(base, folder, native=False, **options):
    """Save an adapter with random weights, and return the model with it."""
    model = MaSSFormerForSemanticSegmentation.from_pretrained(base)
    config = peft.LoraConfig(init_lora_weights=False, **options)
    if native:
        model.add_adapter(config)
    else:
        model = peft.get_peft_model(model, config)
    model.save_pretrained(folder)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_folder_with_an_adapter_is_a_model(base, tmp_path, kind, native):
    model, pixel_values = adapted(base, tmp_path, native, **ADAPTERS[kind]), torch.randn(1, 3, 64, 96)
    loaded, processor = load_model(tmp_path)
    assert isinstance(processor, MaSSFormerImageProcessor)
    expected = model(pixel_values).masks_queries_logits
    torch.testing.assert_close(loaded(pixel_values).masks_queries_logits, expected, rtol=1e-4, atol=1e-4)
    plain = MaSSFormerForSemanticSegmentation.from_pretrained(base)(pixel_values).masks_queries_logits
    assert (plain - expected).abs().max() > 1e-2


def test_commands_take_an_adapter(base, tmp_path):
    adapted(base, tmp_path / "adapter", **ADAPTERS["attention"])
    photo(40, 30).save(tmp_path / "a.png")
    write_pair(tmp_path / "data", "val", "a", 0)
    common = ("--model", tmp_path / "adapter", "--device", "cpu")
    run("segment", tmp_path / "a.png", *common, "--output", tmp_path / "out")
    assert (tmp_path / "out" / "a.png").exists()
    scored = ("--data", tmp_path / "data", "--output", tmp_path / "scores", "--profile-size", "0", "--worst", "0")
    run("evaluate", *common, *scored)
    with pytest.raises(ValueError, match=r"is an adapter of .*Merge both"):
        load_for_training(str(tmp_path / "adapter"), {})


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (None, "is an adapter of an unnamed model.*Set `base_model_name_or_path`"),
        ("/no/where", "is an adapter of /no/where, which is not there"),
    ],
)
def test_an_adapter_without_its_model_is_refused(base, tmp_path, named, message):
    adapted(base, tmp_path, **ADAPTERS["attention"])
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": named}))
    with pytest.raises(FileNotFoundError, match=message):
        load_model(tmp_path)


def test_an_adapter_of_another_model_is_refused(base, tmp_path):
    adapted(base, tmp_path / "adapter", **ADAPTERS["attention"])
    tiny_model(hidden_size=32).save_pretrained(tmp_path / "other")
    MaSSFormerImageProcessor().save_pretrained(tmp_path / "other")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(tmp_path / "other")}))
    with pytest.raises(ValueError, match="does not fit its model"):
        load_model(tmp_path / "adapter")


def test_adapters_and_fused_models_are_not_combined(base, tmp_path):
    adapted(base, tmp_path, **ADAPTERS["attention"])
    fused = MaSSFormerForSemanticSegmentation.from_pretrained(base).fuse()
    with pytest.raises(ValueError, match="Adapters do not fit a fused model"):
        fused.load_adapter(str(tmp_path))
