from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from transformers_massformer.training.arguments import DataArguments, MaSSFormerTrainingArguments, ModelArguments
from transformers_massformer.training.card import CardRecord, describe_training, model_card


SCORES = {
    "eval_mean_iou": 0.5,
    "eval_mean_boundary_iou": 0.25,
    "eval_mean_bf1": 0.125,
    **{f"eval_{name}_sky": 0.75 for name in ("iou", "boundary_iou", "bf1")},
    **{f"eval_{name}_car": float("nan") for name in ("iou", "boundary_iou", "bf1")},
}


@pytest.fixture
def record() -> CardRecord:
    return CardRecord(
        name="my-model",
        model_type="massformer",
        architecture="MaSSFormerForSemanticSegmentation",
        num_parameters=1_234_567,
        labels=["sky", "car"],
        settings={"Data": "6 images of `data`", "Precision": "float32"},
        metrics=SCORES,
        eval_split="validation",
        num_eval_images=3,
    )


def test_a_card_shows_the_record(record, tmp_path):
    model_card(record).save(tmp_path / "README.md")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.tags == ["massformer", "semantic-segmentation", "high-resolution"]
    assert card.data.pipeline_tag == "image-segmentation"
    assert "# my-model\n\nMaSSFormer ([arXiv:2503.18364]" in card.text
    assert "with 1,234,567 parameters, for 2 classes: sky, car.\n" in card.text
    assert 'model="my-model")' in card.text
    assert "On the 3 images of split `validation`, at their own size.\n\n| class | mIoU | BIoU | BF1 |\n" in card.text
    assert "| mean | 50.00 | 25.00 | 0.1250 |\n| sky | 75.00 | 75.00 | 0.7500 |\n| car | - | - | - |\n" in card.text
    assert card.text.endswith("## Training\n\n* Data: 6 images of `data`\n* Precision: float32\n")


def test_a_card_without_scores_says_so(record):
    text = model_card(replace(record, model_type="upernet", architecture="UperNet", metrics={})).text
    assert "# my-model\n\n`UperNet` with" in text
    assert "## Scores\n\nNot evaluated.\n\n## Training\n" in text


def test_the_training_is_described_with_its_options(tmp_path):
    args = MaSSFormerTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=2, total_train_batch_size=16
    )
    data = DataArguments(data="some/photos", pseudo_labels="some/labels")
    settings = describe_training(ModelArguments(model="r50", backbone_weights="a/r50.pth"), data, args, 9, 80_000, 500)
    assert settings["Data"] == "9 images of `photos`, split `train`, with pseudo-labels of `labels` (reweighted)"
    assert settings["Steps"] == "80,000, 16 crops each, on 1 process(es)"
    assert "learning rate 0.0003 (backbone x 0.1, offsets x 1), weight decay 0.05" in settings["Optimiser"]
    assert settings["Backbone"] == "started from `r50.pth`"
    assert settings["Best checkpoint"] == "by mean_boundary_iou, step 500"
