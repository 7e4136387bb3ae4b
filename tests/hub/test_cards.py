"""The cards of the built folders: metadata that the Hub accepts, and the sections that a reader needs."""

import re

import pytest
from build_hub import render_card
from huggingface_hub import DatasetCard, ModelCard, SpaceCard
from huggingface_hub.utils import yaml_dump
from support import ROOT
from transformers.pipelines import check_task

from transformers_massformer.data.mass13k import CITATION


MODELS = [
    *(f"massformer-{variant}" for variant in ("r50", "r18-lite", "swin-t", "swin-b", "demo", "photo")),
    *(f"semask-fpn-swin-{size}" for size in "tsbl"),
]
SECTIONS = {"Use", "Intended use", "Training data", "Limitations", "Licence", "Citation"}


def sections(card: ModelCard) -> set[str]:
    return set(re.findall(r"^## (.*)$", card.text, re.MULTILINE))


def test_every_folder_has_a_card(built_hub):
    assert {path.parent.name for path in built_hub.glob("*/config.json")} == set(MODELS)
    for folder in built_hub.iterdir():
        text = (folder / "README.md").read_text()
        assert "{{" not in text
        assert "{%" not in text
        assert text.endswith("\n")


@pytest.mark.parametrize("name", MODELS)
def test_model_cards(built_hub, name):
    folder = built_hub / name
    # Strict: invalid metadata is an error.
    card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    assert card.data.license == ("other" if name == "massformer-photo" else "apache-2.0")
    assert card.data.library_name == "transformers"
    assert check_task(card.data.pipeline_tag)[0] == "image-segmentation"
    assert "semantic-segmentation" in card.data.tags
    # The scene checkpoint's data are described with its training.
    trained = "Training" if name == "massformer-demo" else "Training data"
    assert sections(card) >= SECTIONS - {"Training data"} | {trained}
    assert "mIoU" in card.text
    # A card without weights must not suggest that the scores are those of files in the folder.
    assert (folder / "model.safetensors").exists() != ("**This folder holds no weights.**" in card.text)
    assert re.search(r"^@(inproceedings|article)\{\w+,\n(  .*\n)+\}$", card.text, re.MULTILINE)
    # Writing and reading the metadata changes nothing.
    assert ModelCard(f"---\n{yaml_dump(card.data.to_dict())}---\n{card.text}").data.to_dict() == card.data.to_dict()


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("massformer-r50", "mIoU 88.21, boundary IoU 48.39 and boundary F1 0.5593"),
        ("massformer-r18-lite", "mIoU 86.13, boundary IoU 43.28 and boundary F1 0.5086"),
        ("massformer-swin-t", "mIoU 89.40, boundary IoU 49.50 and boundary F1 0.5685"),
        ("massformer-swin-b", "mIoU 91.31, boundary IoU 52.74 and boundary F1 0.6076"),
        ("semask-fpn-swin-t", "mIoU 42.11 at a single scale and 43.16 at multiple scales"),
        ("semask-fpn-swin-s", "mIoU 45.92 at a single scale and 47.63 at multiple scales"),
        ("semask-fpn-swin-b", "mIoU 49.35 at a single scale and 50.98 at multiple scales"),
        ("semask-fpn-swin-l", "mIoU 51.89 at a single scale and 53.52 at multiple scales"),
    ],
)
def test_published_scores(built_hub, name, published):
    card = " ".join((built_hub / name / "README.md").read_text().split())
    assert published in card
    assert f"--output {name} ```" in card


def test_the_photo_card_says_what_the_data_allow():
    fields = {"parameters": "1", "training": ["Data: a", "Steps: 2"], "scores": "| | mIoU |", "citation": CITATION}
    card = ModelCard(render_card("massformer-photo", **fields), ignore_metadata_errors=False)
    assert (card.data.license, card.data.license_name) == ("other", "research-only-training-data")
    assert sections(card) >= SECTIONS
    assert "* Data: a\n* Steps: 2\n\n## Training data" in card.text
    assert "**for research\nonly**" in card.text
    # Eight photographs, each with its author and licence.
    assert len(re.findall(r"^\| [\w-]+ \| .* \| CC BY(?:-SA)? 4\.0 \| \[", card.text, re.MULTILINE)) == 8


def test_recipes_named_by_cards_exist(built_hub):
    named = {
        name
        for card in built_hub.glob("*/README.md")
        for name in re.findall(r"massformer train --recipe (\S+?)`", card.read_text())
    }
    assert named == {f"massformer-{variant}" for variant in ("r50", "r18-lite", "swin-t", "swin-b")}
    recipes = ROOT / "src" / "transformers_massformer" / "recipes"
    assert {name for name in named if not (recipes / f"{name}.yaml").is_file()} == set()


def test_the_data_set_card(built_hub):
    card = DatasetCard.load(built_hub / "mass13k" / "README.md", ignore_metadata_errors=False)
    assert card.data.task_ids == ["semantic-segmentation"]
    assert card.data.size_categories == ["10K<n<100K"]
    # The Hub accepts "other" only with a name and a link.
    assert (card.data.license, bool(card.data.license_name), card.data.license_link[:8]) == ("other", True, "https://")
    assert sections(card) >= {
        "How to obtain it",
        "How it was made",
        "Intended use",
        "Limitations",
        "Licence",
        "Citation",
    }
    assert "13,348 photographs" in card.text
    assert "| train | 11,348 |\n| validation | 500 |\n| test | 1,500 |\n\n" in card.text
    assert "| 3 | vegetation | #409648 |\n| 4 |" in card.text


@pytest.mark.parametrize("name", ["boundary_segmentation", "space"])
def test_space_cards(built_hub, name):
    card = SpaceCard.load(built_hub / name / "README.md", ignore_metadata_errors=False)
    assert (card.data.sdk, card.data.app_file) == ("gradio", "app.py")
    assert (built_hub / name / card.data.app_file).is_file()
    if name == "boundary_segmentation":
        assert card.data.tags[:2] == ["evaluate", "metric"]


def test_invalid_metadata_is_an_error(built_hub):
    text = (built_hub / "massformer-r50" / "README.md").read_text()
    with pytest.raises(ValueError, match="model-index|model_index"):
        ModelCard(text.replace("tags:", "model-index: nothing\ntags:", 1), ignore_metadata_errors=False)
