"""The cards under hub/: metadata that the Hub takes, and the sections that a reader needs."""

import re
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard
from huggingface_hub.utils import yaml_dump
from transformers.pipelines import check_task


HUB = Path(__file__).parents[2] / "hub"
MODELS = sorted(path.parent for path in HUB.glob("*/config.json"))
SECTIONS = {"Use", "Intended use", "Training data", "Limitations", "Licence", "Citation"}


def sections(card: ModelCard) -> set[str]:
    return set(re.findall(r"^## (.*)$", card.text, re.MULTILINE))


def test_all_folders_have_a_card():
    assert len(MODELS) == 9
    assert {path.name for path in HUB.iterdir() if not (path / "README.md").is_file()} == set()


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_model_cards(folder):
    # Strict: metadata that is not valid is an error.
    card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert check_task(card.data.pipeline_tag)[0] == "image-segmentation"
    assert "semantic-segmentation" in card.data.tags
    # The demo's data are described with its training.
    trained = "Training" if folder.name == "massformer-demo" else "Training data"
    assert sections(card) >= SECTIONS - {"Training data"} | {trained}
    assert "mIoU" in card.text
    # A card without weights must not let the figures pass for those of files in the folder.
    assert (folder / "model.safetensors").exists() != ("**This folder holds no weights.**" in card.text)
    assert re.search(r"^@(inproceedings|article)\{\w+,\n(  .*\n)+\}$", card.text, re.MULTILINE)
    # What is read is what is written.
    assert ModelCard(f"---\n{yaml_dump(card.data.to_dict())}---\n{card.text}").data.to_dict() == card.data.to_dict()


def test_the_data_card():
    card = DatasetCard.load(HUB / "mass13k" / "README.md", ignore_metadata_errors=False)
    assert card.data.task_ids == ["semantic-segmentation"]
    assert card.data.size_categories == ["10K<n<100K"]
    # The Hub takes "other" only with a name and a link.
    assert (card.data.license, bool(card.data.license_name), card.data.license_link[:8]) == ("other", True, "https://")
    assert sections(card) >= {
        "How to obtain it",
        "How it was made",
        "Intended use",
        "Limitations",
        "Licence",
        "Citation",
    }


def test_broken_metadata_is_an_error():
    text = (HUB / "massformer-r50" / "README.md").read_text()
    with pytest.raises(ValueError, match="model-index|model_index"):
        ModelCard(text.replace("tags:", "model-index: nothing\ntags:", 1), ignore_metadata_errors=False)
