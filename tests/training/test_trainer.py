"""`MaSSFormerTrainer`: training, logging and evaluation."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import PIL.Image
import psutil
import pytest
import torch
import transformers
from support.tiny import TINY_RESNET, TINY_TIMM, tiny_config, tiny_model
from support.tiny_data import write_pair
from support.tiny_trainer import arguments, items_of, losses, trainer_for, write_data
from torch import nn
from transformers import TrainerCallback

from transformers_massformer import MaSSFormerForSemanticSegmentation, MaSSFormerImageProcessor
from transformers_massformer.inference.predictor import ModelPredictor, PredictionOptions
from transformers_massformer.metrics import Counts, count_image, score
from transformers_massformer.training import MaSSFormerTrainer, MaSSFormerTrainingArguments


TERMS = [
    f"loss_{kind}{suffix}" for suffix in ("_0", "_1", "_2", "_3", "") for kind in ("cross_entropy", "mask", "dice")
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


# Training


def test_the_release_recipe_is_the_default(tmp_path):
    args = MaSSFormerTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert (args.learning_rate, args.weight_decay, args.max_grad_norm, args.max_steps) == (3e-4, 0.05, 0.01, 80_000)
    assert args.lr_scheduler_type == "cosine"
    assert args.backbone_learning_rate_factor == 0.1
    assert args.optim.startswith("adamw")
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert (args.metric_for_best_model, args.greater_is_better) == ("mean_boundary_iou", True)


@pytest.mark.parametrize("backbone", [TINY_RESNET, TINY_TIMM])
def test_scale_and_shift_of_the_backbones_norms_stay_but_its_statistics_move(data, tmp_path, backbone):
    model = MaSSFormerForSemanticSegmentation(tiny_config(backbone_config=backbone))
    before = {name: value.clone() for name, value in model.model.backbone.state_dict().items()}
    trainer_for(data, tmp_path, model).train()
    layers = model.model.backbone.named_modules()
    norms = [name for name, layer in layers if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    after = model.model.backbone.state_dict()
    assert norms
    for name in norms:
        assert torch.equal(after[f"{name}.weight"], before[f"{name}.weight"])
        assert torch.equal(after[f"{name}.bias"], before[f"{name}.bias"])
        assert not torch.equal(after[f"{name}.running_mean"], before[f"{name}.running_mean"])
    changed = [name for name in after if name.endswith("weight") and not torch.equal(after[name], before[name])]
    assert changed


def test_a_frozen_backbone_stays_as_it_is(data, tmp_path):
    trainer = trainer_for(data, tmp_path, freeze_backbone=True)
    model = trainer.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not any(name.startswith("model.backbone.") for name in changed)


def test_fixed_statistics_allow_a_batch_of_one(data, tmp_path):
    trainer = trainer_for(data, tmp_path, per_device_train_batch_size=1, fixed_norm_statistics="all")
    before = {name: value.clone() for name, value in trainer.model.named_buffers()}
    trainer.train()
    assert len(losses(trainer)) == 3
    for name, value in trainer.model.named_buffers():
        assert torch.equal(value, before[name]), name


def test_adapters_of_peft_train_alone(data, tmp_path):
    peft = pytest.importorskip("peft")
    model = tiny_model()
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    trainer = trainer_for(data, tmp_path, model)
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer.train()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)


def test_accumulation_reaches_the_total_batch_size(data, tmp_path):
    trainer = trainer_for(data, tmp_path, total_train_batch_size=4)
    assert trainer.args.gradient_accumulation_steps == 2
    trainer.train()
    # A step takes four of the six images; the other two are dropped.
    assert trainer.state.epoch == 3
    with pytest.raises(ValueError, match=r"total_train_batch_size is 5.*multiple of 2.*2 images each"):
        arguments(tmp_path, total_train_batch_size=5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"fixed_norm_statistics": "some"}, "fixed_norm_statistics is 'some'"),
        ({"backbone_learning_rate_factor": -1.0}, "must be 0 or more"),
        ({"offset_learning_rate_factor": -0.1}, "offset_learning_rate_factor is -0.1; it must be 0 or more"),
        ({"num_train_epochs": 2}, "max_steps 3 and num_train_epochs 2 both set the length"),
        ({"num_train_epochs": 0, "max_steps": None}, "num_train_epochs is 0; it must be more than 0"),
        ({"freeze_backbone": True, "train_backbone_norms": True}, "contradict each other"),
        ({"total_train_batch_size": 4, "gradient_accumulation_steps": 3}, "needs gradient_accumulation_steps 2, not"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, option, message):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **option)


@pytest.mark.parametrize(
    ("given", "steps", "epochs"),
    [
        ({}, 80_000, 0),
        ({"max_steps": 7}, 7, 0),
        ({"max_steps": -1}, 80_000, 0),
        ({"num_train_epochs": 2}, -1, 2),
        ({"max_steps": -1, "num_train_epochs": 0.5}, -1, 0.5),
    ],
)
def test_steps_or_epochs_set_the_length(tmp_path, given, steps, epochs):
    args = arguments(tmp_path, **{"max_steps": None, **given})
    for same in (args, dataclasses.replace(args, learning_rate=1e-5)):
        assert (same.max_steps, same.num_train_epochs) == (steps, epochs)


def test_epochs_are_trained_and_evaluated_at_their_end(data, tmp_path, caplog):
    options = {"eval_strategy": "steps", "save_strategy": "steps", "load_best_model_at_end": True}
    trainer = trainer_for(data, tmp_path, max_steps=None, num_train_epochs=2, **options)
    with caplog.at_level("WARNING"):
        trainer.train()
    assert (trainer.state.epoch, trainer.state.global_step) == (2, 6)
    # The default of 5,000 steps would have left out every evaluation, and so the choice of the best checkpoint.
    assert trainer.state.best_global_step == 6
    assert "eval_steps is 5000, more than all 6 steps" in caplog.text


def test_a_warm_up_beyond_the_end_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="warmup_steps is 3, and there are 3 steps"):
        trainer_for(data, tmp_path, warmup_steps=3).train()
    trainer_for(data, tmp_path, warmup_steps=0.5).train()


def test_a_weight_of_semantic_maps_that_nothing_reads_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match=r"semantic_loss_weight 1.0 is not read.*Set it in model_config"):
        trainer_for(data, tmp_path, semantic_loss_weight=1.0)


def test_too_few_images_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="There are 6 training images, and a step takes 8"):
        trainer_for(data, tmp_path, per_device_train_batch_size=8).train()


@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning")
def test_activations_computed_again_give_the_same_losses(data, tmp_path):
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        model = tiny_model()
        trainer = trainer_for(data, tmp_path / str(checkpointing), model, gradient_checkpointing=checkpointing)
        trainer.train()
        assert model.model.pixel_decoder.gradient_checkpointing == checkpointing
        found.append(losses(trainer))
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(data, tmp_path, precision):
    # float16 needs a gradient scaler, which requires a GPU.
    if precision == "fp16" and not torch.cuda.is_available():
        pytest.skip("float16 trains on GPUs")
    trainer = trainer_for(data, tmp_path, **{precision: True})
    trainer.train()
    assert all(np.isfinite(losses(trainer)))


# Logging


def test_every_loss_term_is_logged_and_they_add_up(data, tmp_path):
    trainer = trainer_for(data, tmp_path, logging_steps=2, max_steps=4)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(entries) == 2
    for entry in entries:
        assert {name for name in entry if name.startswith("loss_")} == {*TERMS, "loss_edge"}
        assert sum(entry[name] for name in [*TERMS, "loss_edge"]) == pytest.approx(entry["loss"], rel=1e-5)


# Evaluation


def scores_by_hand(model, data: Path, **options) -> dict:
    predictor = ModelPredictor(model.eval(), MaSSFormerImageProcessor(), PredictionOptions(True, **options))
    counts = []
    for item in items_of(data, "val"):
        label = torch.from_numpy(np.array(PIL.Image.open(item["label"])))
        counts.append(count_image(predictor(PIL.Image.open(item["image"])), label, 7))
    return score(Counts.stack(counts))


def test_after_mixed_precision_the_trainer_scores_what_the_saved_model_segments(data, tmp_path):
    trainer = trainer_for(data, tmp_path, max_steps=1, bf16=True)
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    photo = PIL.Image.open(items_of(data, "val")[0]["image"])
    expected = ModelPredictor.load(tmp_path / "saved", "cpu").predict(photo, mattes=True)
    found = trainer.predictor().predict(photo, mattes=True)
    assert np.array_equal(found.mattes, expected.mattes)
    # The model itself still trains in mixed precision.
    assert hasattr(trainer.model, "_original_forward")


@pytest.mark.parametrize("tile", [None, 64])
def test_evaluation_is_that_of_the_benchmark(data, tmp_path, tile):
    trainer = trainer_for(data, tmp_path, eval_tile=tile, per_device_eval_batch_size=2)
    metrics = trainer.evaluate()
    expected = scores_by_hand(trainer.model, data, tile=tile)
    for name in ("mean_iou", "mean_boundary_iou", "mean_bf1", "overall_accuracy", "image_mean_iou"):
        assert metrics[f"eval_{name}"] == pytest.approx(expected[name], rel=1e-12), name
    for index, label in enumerate(trainer.labels):
        assert metrics[f"eval_iou_{label}"] == pytest.approx(expected["per_category_iou"][index], nan_ok=True)


def test_several_data_sets_are_evaluated_by_name(data, tmp_path):
    trainer = trainer_for(data, tmp_path)
    metrics = trainer.evaluate({"first": items_of(data, "val")[:1], "rest": items_of(data, "val")[1:]})
    assert {"eval_first_mean_iou", "eval_rest_mean_iou"} <= metrics.keys()


def test_evaluation_names_a_label_map_with_unknown_values(data, tmp_path):
    image, label = write_pair(tmp_path / "bad", "val", "bad", 0)
    PIL.Image.fromarray(np.full((80, 96), 9, dtype=np.uint8)).save(label)
    trainer = trainer_for(data, tmp_path)
    with pytest.raises(
        ValueError, match=re.escape(f"{label}: The label has values that are none of the 7 classes: 9")
    ):
        trainer.evaluate([{"image": image, "label": label}])


def test_evaluation_without_a_processor_is_an_error(data, tmp_path):
    trainer = MaSSFormerTrainer(model=tiny_model(), args=arguments(tmp_path), eval_dataset=items_of(data, "val"))
    with pytest.raises(ValueError, match="Evaluation needs the model's image processor"):
        trainer.evaluate()


class MemoryRecorder(TrainerCallback):
    def __init__(self):
        self.bytes = []

    def on_prediction_step(self, args, state, control, **kwargs):
        self.bytes.append(psutil.Process().memory_info().rss)


def test_memory_of_evaluation_does_not_grow(data, tmp_path):
    trainer = trainer_for(data, tmp_path)
    recorder = MemoryRecorder()
    trainer.add_callback(recorder)
    trainer.evaluate(items_of(data, "val")[2:] * 200)
    assert len(recorder.bytes) == 200
    # Logits alone would take 200 x 0.1 MB.
    assert max(recorder.bytes[20:]) < 1.05 * recorder.bytes[20]


def test_the_best_checkpoint_is_kept_by_boundary_iou(data, tmp_path):
    values = iter([0.2, 0.5, 0.3])

    class Scripted(MaSSFormerTrainer):
        def scores(self, prediction):
            return {**super().scores(prediction), "mean_boundary_iou": next(values)}

    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    options = {**steps, "save_total_limit": 1, "load_best_model_at_end": True}
    trainer = trainer_for(data, tmp_path, kind=Scripted, **options)
    trainer.train()
    assert trainer.state.best_global_step == 2
    best = MaSSFormerForSemanticSegmentation.from_pretrained(tmp_path / "checkpoint-2")
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, best.state_dict()[name]), name


# The plain Trainer


def test_the_plain_trainer_works(data, tmp_path):
    processor = MaSSFormerImageProcessor()

    def encode(batch):
        return processor(batch["image"], segmentation_maps=batch["label"], return_tensors="pt")

    files = items_of(data, "train")
    columns = {name: [str(item[name]) for item in files] for name in ("image", "label")}
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict(columns)
    dataset = dataset.cast_column("image", datasets.Image()).cast_column("label", datasets.Image())
    options = {"max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 2, "remove_unused_columns": False}
    args = transformers.TrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, report_to="none", **options)
    trainer = transformers.Trainer(model=tiny_model(), args=args, train_dataset=dataset.with_transform(encode))
    trainer.train()
    trainer.save_model()
    assert all(np.isfinite([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))
    assert (tmp_path / "model.safetensors").is_file()
