"""`massformer train`: from a data folder to a folder with a trained model."""

import contextlib
import json
import os
import resource
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from huggingface_hub.utils import filter_repo_objects
from support import ROOT
from support.commands import run, run_python
from support.tiny import TINY_SEMASK
from support.tiny_data import write_pair
from support.tiny_peers import FIELDS, write_peer
from support.tiny_trainer import write_data
from support.training_command import TINY, train, write_recipe
from transformers import Trainer, pipeline

from transformers_massformer import MaSSFormerConfig, MaSSFormerForSemanticSegmentation
from transformers_massformer.cli.train import parse_arguments, read_recipe
from transformers_massformer.data.layout import find_splits
from transformers_massformer.data.training_set import TrainingSet
from transformers_massformer.data.transforms import TrainingTransform
from transformers_massformer.training import session
from transformers_massformer.training.arguments import ModelArguments
from transformers_massformer.training.checkpoints import checkpoints, last_checkpoint
from transformers_massformer.training.models import NEW_MODEL_FIELDS, build_model
from transformers_massformer.training.session import TrainingSession, items, read_pairs


RECIPES = sorted((ROOT / "src" / "transformers_massformer" / "recipes").rglob("*.yaml"))
BENCHMARK = sorted((ROOT / "src" / "transformers_massformer" / "recipes" / "benchmark").glob("*.yaml"))


@pytest.fixture
def data(tmp_path) -> Path:
    return write_data(tmp_path / "data", num_eval=1)


@pytest.fixture
def recipe(tmp_path) -> Path:
    return write_recipe(tmp_path / "tiny.yaml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path, str]:
    """Train once and return data folder, output folder and standard output; tests must not modify the folders."""
    folder = tmp_path_factory.mktemp("session")
    data, output = write_data(folder / "data", num_eval=1), folder / "trained"
    return data, output, train(data, write_recipe(folder / "tiny.yaml"), output).stdout


def order_of_first_epoch(data: Path) -> list[Path]:
    """Return the photos in the order of the first epoch with the default seed."""
    files = items(read_pairs(find_splits(data), "train"))
    order = TrainingSet(files, TrainingTransform(crop_size=64), seed=42).order()
    return [files[index]["image"] for index in order]


def test_a_training_leaves_a_model_that_opens_in_a_pipeline(trained):
    data, output, printed = trained
    assert "mIoU" in printed
    for name in ("config.json", "model.safetensors", "preprocessor_config.json", "README.md", "eval_results.json"):
        assert (output / name).is_file(), name
    assert not list(output.glob(".*"))
    masks = pipeline("image-segmentation", model=str(output))(str(data / "images" / "val" / "val0.jpg"))
    assert {mask["mask"].size for mask in masks} == {(96, 80)}
    card = (output / "README.md").read_text()
    results = json.loads((output / "eval_results.json").read_text())
    assert f"| mean | {100 * results['eval_mean_iou']:.2f} | {100 * results['eval_mean_boundary_iou']:.2f} |" in card
    assert "6 images of `data`" in card
    assert "Steps: 4, 2 crops each, on 1 process(es)" in card


def test_evaluate_gives_the_scores_of_the_card(trained, tmp_path):
    data, output, _ = trained
    options = ("--output", tmp_path / "scores", "--profile-size", "0", "--device", "cpu")
    run("evaluate", "--model", output, "--data", data, *options)
    scores = json.loads((tmp_path / "scores" / "results.json").read_text())["scores"]
    results = json.loads((output / "eval_results.json").read_text())
    for name in ("mean_iou", "mean_boundary_iou", "mean_bf1"):
        assert results[f"eval_{name}"] == pytest.approx(scores[name], rel=1e-9)


def test_a_finished_training_is_skipped_and_another_one_refused(data, recipe, tmp_path):
    output = tmp_path / "trained"
    train(data, recipe, output)
    before = (output / "model.safetensors").read_bytes()
    train(data, recipe, output)
    assert (output / "model.safetensors").read_bytes() == before
    refused = train(data, recipe, output, "--learning_rate", "0.1", code=1)
    assert "another training (different learning_rate)" in refused.stderr
    train(data, recipe, output, "--learning_rate", "0.1", "--overwrite")
    assert (output / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize("change", ["photo", "label map", "removed"])
def test_a_training_on_other_data_is_neither_skipped_nor_resumed(data, recipe, tmp_path, change):
    output, label = tmp_path / "trained", data / "annotations" / "train" / "train0.png"
    photo = data / "images" / "train" / "train0.jpg"
    train(data, recipe, output)
    # Contents that were only copied are the same data.
    for path in (label, photo):
        os.utime(path, (1, 1))
    before = (output / "model.safetensors").stat().st_mtime_ns
    train(data, recipe, output)
    assert (output / "model.safetensors").stat().st_mtime_ns == before
    if change == "removed":
        label.unlink()
        photo.unlink()
    elif change == "photo":
        PIL.Image.open(photo).save(photo, quality=50)
    else:
        PIL.Image.fromarray(np.zeros_like(PIL.Image.open(label))).save(label)
    expected = "data_files, data_sizes" if change == "removed" else "data_sizes"
    assert f"another training (different {expected})" in train(data, recipe, output, code=1).stderr


def test_a_published_model_comes_with_its_card_and_results_alone(data, recipe, tmp_path, monkeypatch):
    output, uploads = tmp_path / "trained", []

    def upload_folder(folder_path, ignore_patterns, repo_id, **options):
        files = [str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*") if path.is_file()]
        uploads.append((repo_id, set(filter_repo_objects(files, ignore_patterns=ignore_patterns))))

    monkeypatch.setattr(session, "upload_folder", upload_folder)
    monkeypatch.setattr(Trainer, "init_hf_repo", lambda self: setattr(self, "hub_model_id", "owner/name"))
    output.mkdir()
    (output / ".a.1.partial").write_text("half")
    train(data, recipe, output, "--push_to_hub", "--hub_strategy", "end")
    card = (output / "README.md").read_text()
    assert "generated_from_trainer" not in card
    files = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "eval_results.json"}
    ((name, uploaded),) = uploads
    assert name == "owner/name"
    assert uploaded - {"training_args.bin"} == files


def test_a_training_killed_before_saving_its_model_only_saves_it(data, recipe, tmp_path):
    output = tmp_path / "trained"
    train(data, recipe, output)
    model, card = (output / "model.safetensors").read_bytes(), (output / "README.md").read_text()
    for name in ("model.safetensors", "README.md", "eval_results.json"):
        (output / name).unlink()
    before = checkpoints(output)
    train(data, recipe, output)
    assert (output / "model.safetensors").read_bytes() == model
    assert (output / "README.md").read_text() == card
    assert checkpoints(output) == before


def test_fine_tuning_from_a_folder_with_other_classes(trained, tmp_path):
    data, first, _ = trained
    second, labels = tmp_path / "second", [f"class {index}" for index in range(8)]
    recipe = write_recipe(tmp_path / "tiny.yaml", model_config=None, labels=labels, new_classes=True, max_steps=2)
    train(data, recipe, second, "--model", str(first))
    model = MaSSFormerForSemanticSegmentation.from_pretrained(second)
    assert model.config.id2label[7] == "class 7"
    assert model.class_predictor.out_features == 9


def test_without_a_validation_split_nothing_is_evaluated(data, recipe, tmp_path):
    (data / "images" / "val").rename(tmp_path / "images")
    (data / "annotations" / "val").rename(tmp_path / "labels")
    output = tmp_path / "trained"
    train(data, recipe, output)
    assert "Not evaluated." in (output / "README.md").read_text()
    assert not any("iou" in name for name in json.loads((output / "eval_results.json").read_text()))


@pytest.mark.parametrize(
    ("damage", "message", "workers"),
    [
        (lambda image, label: image.write_bytes(image.read_bytes()[:700]), "is damaged or truncated", 1),
        (
            lambda image, label: PIL.Image.fromarray(np.full((80, 96), 9, dtype=np.uint8)).save(label),
            "unknown labels [9]",
            0,
        ),
    ],
    ids=["image in a worker", "label map"],
)
def test_a_bad_file_within_an_epoch_is_named_and_nothing_is_lost(data, recipe, tmp_path, damage, message, workers):
    output, last = tmp_path / "trained", order_of_first_epoch(data)[-1]
    label = data / "annotations" / "train" / f"{last.stem}.png"
    damage(last, label)
    options = ["--save_steps", "1", "--eval_strategy", "no", "--load_best_model_at_end", "false"]
    failed = train(data, recipe, output, *options, "--dataloader_num_workers", str(workers), code=1)
    named = label if "labels" in message else last
    assert str(named) in failed.stderr
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    whole = last_checkpoint(output, 1)
    assert whole is not None
    MaSSFormerForSemanticSegmentation.from_pretrained(whole)
    # Once the file is repaired, the training resumes.
    write_pair(data, "train", last.stem, 0)
    train(data, recipe, output, *options)
    assert (output / "model.safetensors").is_file()


def test_a_label_map_of_another_size_is_named_before_training_starts(data, recipe, tmp_path):
    label = data / "annotations" / "train" / "train0.png"
    PIL.Image.new("L", (10, 10)).save(label)
    failed = train(data, recipe, tmp_path / "trained", code=1)
    assert str(label) in failed.stderr
    assert "10 x 10 for a photograph of 96 x 80" in failed.stderr


@contextlib.contextmanager
def limited_file_size(num_bytes: int):
    """Limit the size of files that this process writes, which fails like a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_ones(data, recipe, tmp_path):
    output = tmp_path / "trained"
    options = ["--eval_strategy", "no", "--load_best_model_at_end", "false"]
    train(data, recipe, output, *options, "--max_steps", "2")
    (output / "eval_results.json").unlink()
    identity = json.loads((output / "training.json").read_text())
    (output / "training.json").write_text(json.dumps({**identity, "max_steps": 4}))
    size = (output / "checkpoint-2" / "model.safetensors").stat().st_size
    with limited_file_size(size // 2):
        failed = train(data, recipe, output, *options, code=1)
    assert "The checkpoint of step 4 could not be written" in failed.stderr
    assert "Earlier checkpoints are intact" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert checkpoints(output) == [output / "checkpoint-2"]
    train(data, recipe, output, *options)
    assert (output / "checkpoint-4").is_dir()


def test_an_output_that_cannot_be_written_to_is_an_error(data, recipe, tmp_path):
    (tmp_path / "file").write_text("")
    failed = train(data, recipe, tmp_path / "file" / "output", code=1)
    assert str(tmp_path / "file") in failed.stderr


def test_checkpoints_of_unknown_origin_are_not_resumed(data, recipe, tmp_path):
    checkpoint = tmp_path / "trained" / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    (checkpoint / "rng_state.pth").write_bytes(b"")
    failed = train(data, recipe, tmp_path / "trained", code=1)
    assert "checkpoints of unknown origin" in failed.stderr
    assert checkpoint.is_dir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "r49"], "There is no model at r49"),
        (["--train_split", "test"], "Unknown split test; the data has train, validation"),
        (["--model_config", "{"], "model_config is not valid JSON"),
        (["--model_config", '{"num_queries": 3}'], "error: `num_queries` (3) must be at least the number of labels"),
        (["--backbone_weights", "./nothing.pth"], "no weights at ./nothing.pth"),
        (["--recipe", "nothing.yaml"], "There is no recipe nothing.yaml"),
        (["--data", "nowhere"], "The folder nowhere does not exist"),
    ],
)
def test_missing_things_are_named(data, recipe, tmp_path, options, message):
    failed = train(data, recipe, tmp_path / "trained", *options, code=1)
    assert message in failed.stderr


def test_unknown_options_are_refused(data, recipe, tmp_path):
    failed = train(data, recipe, tmp_path / "trained", "--learning_rat", "1", code=1)
    assert "Unknown option --learning_rat" in failed.stderr
    recipe.write_text("learning_rat: 1\n")
    failed = train(data, recipe, tmp_path / "trained", code=1)
    assert "contains unknown options: learning_rat" in failed.stderr
    recipe.write_text("just text")
    assert "does not map options to values" in train(data, recipe, tmp_path / "trained", code=1).stderr


@pytest.mark.parametrize(
    ("fields", "unknown"),
    [
        ({"num_querys": 9}, "model_config does not read num_querys. Did you mean num_queries?"),
        ({"backbone_config": {"model_type": "resnet", "depth": [1]}}, "backbone_config does not read depth. Did you"),
        ({"model_type": "segformer", "depth": [1]}, "model_config does not read depth. Did you mean depths?"),
        ({"nothing": 1}, "model_config does not read nothing. It reads architectures"),
    ],
)
def test_unknown_fields_of_a_model_are_refused(data, recipe, tmp_path, trained, fields, unknown):
    recipe = write_recipe(recipe, model_config=fields)
    for options in ((), ("--model", str(trained[1]))):
        if "model_type" not in fields or not options:
            failed = train(data, recipe, tmp_path / "new", *options, code=1)
            assert unknown in " ".join(failed.stderr.split())


@pytest.mark.parametrize(
    ("given", "steps", "epochs"),
    [
        ([], 4, 0),
        (["--num_train_epochs", "2"], -1, 2),
        (["--num-train-epochs=0.5"], -1, 0.5),
        (["--max_steps=9"], 9, 0),
    ],
)
def test_the_length_on_the_command_line_replaces_the_recipe_s(recipe, tmp_path, given, steps, epochs):
    for fields in ({}, {"max_steps": None, "num_train_epochs": 7}):
        if given or not fields:
            options = [*given, "--output_dir", str(tmp_path)]
            *_, args = parse_arguments(read_recipe(write_recipe(recipe, **fields)), options, "tiny")
            assert (args.max_steps, args.num_train_epochs) == (steps, epochs)


PARAMETERS = {
    "massformer-r50": 37_578_176,
    "massformer-r18-lite": 15_080_864,
    "massformer-swin-t": 41_119_802,
    "massformer-swin-b": 100_573_688,
    "massformer-semask-swin-t": 42_712_502,
}


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_contain_valid_options(path, tmp_path):
    given = ["--output_dir", str(tmp_path), "--use_cpu", "--bf16", "false"]
    model, data, args = parse_arguments(read_recipe(path), given, path.name)
    assert data.crop_size >= 384
    if path in BENCHMARK or path.stem.startswith("massformer-"):
        # The same for all but EoMT, whose input size is fixed.
        assert args.max_steps == 80_000
        assert args.train_batch_size * args.gradient_accumulation_steps == 16
        assert data.crop_size == (512 if path.stem == "eomt-l" else 1024)
    if path not in BENCHMARK and path.stem.startswith("massformer-"):
        release = {name: getattr(MaSSFormerConfig(), name) for name in NEW_MODEL_FIELDS}
        fields = model.config_fields()
        with torch.device("meta"):
            network, *_ = build_model(ModelArguments(model.model, fields))
            released, *_ = build_model(ModelArguments(model.model, {**fields, **release}))
        assert {name: getattr(network.config, name) for name in NEW_MODEL_FIELDS} == NEW_MODEL_FIELDS
        assert released.num_parameters() == PARAMETERS[path.stem]


def test_two_processes_train_from_the_command_line(data, recipe, tmp_path):
    output = tmp_path / "trained"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    options = ("--data", data, "--recipe", recipe, "--output", output, "--dataloader_num_workers", "1")
    command = (*launcher, "transformers_massformer.cli", "train", *options)
    result = run_python(*command, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=600)
    assert "on 2 process(es)" in (output / "README.md").read_text()
    assert result.stdout.count("Wrote model, processor and card") == 1
    assert "not synchronised over processes on cpu" in result.stderr


def test_other_processes_leave_the_files_of_the_main_process(data, recipe, tmp_path, monkeypatch):
    arguments = parse_arguments(
        read_recipe(recipe), ["--data", str(data), "--output_dir", str(tmp_path / "out")], "tiny"
    )
    session = TrainingSession(*arguments)
    written = tmp_path / "out" / ".model.partial" / "model.safetensors"
    written.parent.mkdir()
    written.write_bytes(b"weights")
    monkeypatch.setattr(TrainingSession, "is_main_process", False)
    monkeypatch.setattr(session.trainer, "save_model", lambda folder, **options: None)
    session.save({})
    assert written.read_bytes() == b"weights"


# Recipes that name a model on the Hub start from a folder instead.
PEERS_OF = {"segformer-b2": "segformer", "oneformer-swin-t": "oneformer", "eomt-l": "eomt"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You'd better set embed_dim:UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("path", BENCHMARK, ids=lambda path: path.stem)
def test_a_benchmark_recipe_trains_and_evaluates(path, data, tmp_path):
    recipe = yaml.safe_load(path.read_text())
    recipe.pop("backbone_weights", None)
    if path.stem in PEERS_OF:
        recipe["model"] = str(write_peer(PEERS_OF[path.stem], tmp_path / "peer"))
    elif "model_config" in recipe:
        recipe["model_config"] |= FIELDS[recipe["model_config"]["model_type"]]
    else:
        recipe["model_config"] = {"hidden_size": 16, "backbone_config": TINY_SEMASK}
    recipe |= {name: TINY[name] for name in TINY if name not in ("model_config", "learning_rate")}
    recipe |= {"max_steps": 2, "eval_strategy": "no", "load_best_model_at_end": False, "crop_size": 64}
    recipe |= {"total_train_batch_size": None, "warmup_steps": 0, "save_strategy": "no"}
    tiny = tmp_path / "recipe.yaml"
    tiny.write_text(yaml.safe_dump(recipe))
    train(data, tiny, tmp_path / "trained")
    trained = json.loads((tmp_path / "trained" / "eval_results.json").read_text())
    options = ["--data", data, "--split", "val", "--profile-size", "0", "--output", tmp_path / "scores"]
    options += ["--native-input"] if path.stem == "oneformer-swin-t" else []
    run("evaluate", "--model", tmp_path / "trained", *options)
    scores = json.loads((tmp_path / "scores" / "results.json").read_text())["scores"]
    assert scores["mean_iou"] == pytest.approx(trained["eval_mean_iou"], abs=1e-6)


def test_semantic_maps_of_a_semask_backbone_are_supervised_in_other_models(data, tmp_path):
    recipe = {**TINY, "model_config": {"model_type": "mask2former", **FIELDS["mask2former"]}}
    recipe["model_config"]["backbone_config"] = TINY_SEMASK
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "logging_steps": 1}))
    train(data, tmp_path / "recipe.yaml", tmp_path / "trained", "--max_steps", "2")
    history = [json.loads(path.read_text()) for path in (tmp_path / "trained").glob("*/trainer_state.json")]
    logged = [entry for state in history for entry in state["log_history"] if "loss" in entry]
    assert logged
    for entry in logged:
        # Cross-entropy of seven classes before any training, times its weight.
        assert 0.4 * 1.0 < entry["loss_semantic"] < 0.4 * 4
        assert entry["loss"] > entry["loss_semantic"]


def test_options_for_massformer_alone_are_refused(data, tmp_path):
    recipe = {**TINY, "model_config": {"model_type": "upernet", **FIELDS["upernet"]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    failed = train(data, tmp_path / "recipe.yaml", tmp_path / "out", "--add_class", "bicycle", code=1)
    assert "Only MaSSFormer can be extended with new classes" in failed.stderr
    recipe["model_config"] = {"model_type": "bert"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    failed = train(data, tmp_path / "recipe.yaml", tmp_path / "other", code=1)
    assert "is not for semantic or universal segmentation" in failed.stderr
