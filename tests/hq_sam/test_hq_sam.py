"""Test HQ-SAM: prompts, training, evaluation and refinement."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from support.commands import run
from support.processes import run_command
from support.tiny_labelers import save_sam2, save_sam_hq

from transformers_massformer.hq_sam import (
    HQSamTrainer,
    HQSamTrainingArguments,
    ObjectSet,
    Refiner,
    evaluate_prompts,
    find_objects,
    freeze_sam,
)
from transformers_massformer.hq_sam.data import PROMPT_KINDS, object_masks
from transformers_massformer.hq_sam.evaluation import PROMPTS, mask_scores, mean_scores
from transformers_massformer.hq_sam.prompts import (
    MASK_LOGIT,
    box_around,
    centre_point,
    coarse_mask,
    mask_prompt,
    noisy_box,
    random_points,
)
from transformers_massformer.hq_sam.trainer import LEARNED, mask_losses
from transformers_massformer.labeling import SamSegmenter


@pytest.fixture(scope="session")
def sam_hq(tmp_path_factory) -> Path:
    return save_sam_hq(tmp_path_factory.mktemp("sam_hq") / "model")


def write_objects(folder: Path, count: int, seed: int, size=(96, 72)):
    """Write photos of one dark ellipse on light noise, with its binary mask."""
    rng = np.random.default_rng(seed)
    for name in ("im", "gt"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        mask = PIL.Image.new("L", size)
        centre, radii = rng.uniform(0.3, 0.7, 2) * size, rng.uniform(0.12, 0.28, 2) * size
        PIL.ImageDraw.Draw(mask).ellipse([*(centre - radii), *(centre + radii)], fill=255)
        inside = np.asarray(mask) > 0
        photo = np.where(inside[..., None], 40, 190) + rng.normal(0, 10, (*inside.shape, 3))
        PIL.Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(folder / "im" / f"{index}.jpg", quality=95)
        mask.save(folder / "gt" / f"{index}.png")


@pytest.fixture
def data(tmp_path) -> Path:
    write_objects(tmp_path / "data" / "train", 24, 0)
    write_objects(tmp_path / "data" / "validation", 4, 1)
    return tmp_path / "data"


masks = st.tuples(st.integers(4, 40), st.integers(4, 40), st.integers(0, 2**16)).map(
    lambda shape: np.random.default_rng(shape[2]).random(shape[:2]) < 0.3
)


@settings(max_examples=40, deadline=None)
@given(masks.filter(np.any), st.floats(0, 0.4), st.integers(0, 2**16))
def test_boxes(mask, noise, seed):
    left, top, right, bottom = box_around(mask).astype(int)
    rows, columns = np.nonzero(mask)
    assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    box = box_around(mask)
    noisy = noisy_box(box, noise, mask.shape, np.random.default_rng(seed))
    assert (noisy[2:] - noisy[:2] >= 1 - 1e-9).all()
    assert (noisy >= 0).all()
    assert (noisy <= np.tile(mask.shape[::-1], 2)).all()
    # A corner moves by half the side's change plus the centre's shift, unless it is clipped to the image.
    sides = np.tile(box[2:] - box[:2], 2)
    assert (np.abs(noisy - box) <= np.maximum(noise * sides, 1) + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(masks.filter(np.any), st.integers(1, 10), st.integers(0, 2**16))
def test_points_lie_inside(mask, count, seed):
    points = random_points(mask, count, np.random.default_rng(seed)).astype(int)
    assert points.shape == (count, 2)
    assert mask[points[:, 1], points[:, 0]].all()
    ((x, y),) = centre_point(mask).astype(int)
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded) - 1
    nearest = [np.hypot(*(outside - place).T).min() for place in np.argwhere(mask)]
    assert np.hypot(*(outside - (y, x)).T).min() == pytest.approx(max(nearest))


def test_coarse_masks_differ_near_the_boundary_only():
    mask = np.zeros((200, 300), bool)
    mask[50:150, 80:220] = True
    coarse = coarse_mask(mask, np.random.default_rng(0))
    changed = coarse != mask
    assert 0.01 < changed.mean() < 0.1
    distance = np.where(mask, ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask))
    assert distance[changed].max() <= 0.02 * np.hypot(200, 300)
    assert not np.array_equal(coarse, coarse_mask(mask, np.random.default_rng(1)))
    assert np.array_equal(coarse_mask(np.ones((20, 20), bool), np.random.default_rng(0)), np.ones((20, 20)))


def test_mask_prompts_are_logits_of_the_padded_square():
    mask = np.zeros((32, 64), bool)
    mask[:16] = True
    prompt = mask_prompt(mask, 64, 16)
    assert prompt.shape == (1, 16, 16)
    assert (prompt[0, :4] == MASK_LOGIT).all()
    assert (prompt[0, 4:] == -MASK_LOGIT).all()


def test_samples_are_reproducible_and_of_all_kinds(data, sam_hq):
    model = transformers.SamHQModel.from_pretrained(sam_hq)
    processor = transformers.AutoProcessor.from_pretrained(sam_hq).image_processor
    dataset = ObjectSet(*find_objects(data, "train"), model, processor, seed=3)
    kinds, sizes = set(), []
    for index in range(len(dataset)):
        sample, again = dataset[index], dataset[index]
        assert all(torch.equal(value, again[name]) for name, value in sample.items())
        assert sample["pixel_values"].shape == (3, 64, 64)
        assert set(sample["labels"].unique().tolist()) <= {0, 1}
        assert sample["labels"].any()
        sizes.append(sample["labels"].sum().item())
        kinds |= sample.keys() - {"pixel_values", "labels"}
        # The prompt fits the mask.
        rows, columns = sample["labels"].nonzero(as_tuple=True)
        if "input_boxes" in sample:
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert sample["input_boxes"].tolist() == expected
        if "input_points" in sample:
            x, y = sample["input_points"].long().T
            assert sample["labels"][y, x].all()
        # Image and mask are transformed alike: the image is dark where the mask is.
        inside = sample["labels"].bool()
        if 30 < inside.sum() < 3000:
            assert sample["pixel_values"][0][inside].mean() < -1
    assert kinds == {f"input_{kind}" for kind in ("boxes", "points", "masks")}
    assert len(PROMPT_KINDS) == 3
    # Large-scale jitter varies the size of the objects.
    assert max(sizes) > 10 * min(sizes)
    dataset.set_epoch(1)
    assert not torch.equal(dataset[0]["pixel_values"], sample["pixel_values"])


def test_objects_of_a_label_map():
    label = torch.tensor([[0, 0, 3], [255, 3, 1]], dtype=torch.uint8)
    found = object_masks(label, binary=False)
    assert list(found) == [0, 1, 3]
    assert found[3].tolist() == [[False, False, True], [False, True, False]]
    for values in ([0, 1], [0, 255]):
        (mask,) = object_masks(torch.tensor([values], dtype=torch.uint8), binary=True).values()
        assert mask.tolist() == [[False, True]]
    assert not object_masks(torch.zeros(2, 2, dtype=torch.uint8), binary=True)


def test_losses_equal_a_literal_computation():
    logits, labels = torch.randn(3, 8, 8), (torch.rand(3, 8, 8) < 0.4).float()
    losses = mask_losses(logits, labels)
    entropy, dice = 0.0, 0.0
    for logit, label in zip(logits, labels, strict=True):
        p = logit.sigmoid()
        entropy -= (label * p.log() + (1 - label) * (1 - p).log()).mean().item() / 3
        dice += (1 - (2 * (p * label).sum() + 1) / (p.sum() + label.sum() + 1)).item() / 3
    assert losses["loss_mask"].item() == pytest.approx(entropy, rel=1e-5)
    assert losses["loss_dice"].item() == pytest.approx(dice, rel=1e-5)


def trained(data: Path, sam_hq: Path, output: Path, **options):
    model = transformers.SamHQModel.from_pretrained(sam_hq)
    processor = transformers.AutoProcessor.from_pretrained(sam_hq)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    args = HQSamTrainingArguments(
        output_dir=str(output), use_cpu=True, disable_tqdm=True, report_to="none", save_strategy="no", **options
    )
    dataset = ObjectSet(*find_objects(data, "train"), model, processor.image_processor)
    trainer = HQSamTrainer(model, args, dataset, processor)
    trainer.train()
    return trainer, before


def test_only_the_parameters_of_hq_sam_learn(data, sam_hq, tmp_path):
    trainer, before = trained(data, sam_hq, tmp_path / "out", max_steps=3, logging_steps=1)
    for name, value in trainer.model.state_dict().items():
        if name.startswith(LEARNED):
            assert not torch.equal(value, before[name]), name
        else:
            assert torch.equal(value, before[name]), name
    with pytest.raises(ValueError, match="use a model of type sam_hq"):
        freeze_sam(torch.nn.Linear(1, 1))


def test_the_learning_rate_drops_once(data, sam_hq, tmp_path):
    trainer, _ = trained(data, sam_hq, tmp_path / "out", max_steps=6, logging_steps=1, drop_after=0.5)
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates == pytest.approx([1e-3] * 3 + [1e-4] * 3)


def test_training_improves_boundaries(data, sam_hq, tmp_path):
    kinds = {name: PROMPTS[name] for name in ("box", "coarse mask")}

    def evaluate(model):
        segmenter = SamSegmenter(model, transformers.AutoProcessor.from_pretrained(sam_hq))
        found = evaluate_prompts(segmenter, *find_objects(data, "validation"), kinds, hq_token_only=True)
        return mean_scores(list(found))

    before = evaluate(transformers.SamHQModel.from_pretrained(sam_hq))
    options = {"max_steps": 60, "logging_steps": 10, "per_device_train_batch_size": 8, "learning_rate": 1e-2}
    trainer, _ = trained(data, sam_hq, tmp_path / "out", **options)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.3 * losses[0]
    after = evaluate(trainer.model)
    for name in kinds:
        assert after[name]["mbiou"] > before[name]["mbiou"] + 0.3
        assert after[name]["miou"] > 0.8


def test_evaluating_another_model_raises(data, tmp_path):
    segmenter = SamSegmenter.load(save_sam2(tmp_path / "sam2"), "cpu", torch.float32)
    with pytest.raises(ValueError, match="The model is of type sam2; use a SAM"):
        list(evaluate_prompts(segmenter, *find_objects(data, "validation")))


def test_scores_of_masks():
    mask = np.zeros((100, 100), bool)
    mask[20:60, 20:60] = True
    assert mask_scores(mask, mask) == (1, 1)
    iou, boundary_iou = mask_scores(np.roll(mask, 4, axis=1), mask)
    assert iou == pytest.approx(36 / 44)
    # The band has round(0.02 * 141) = 3 pixels.
    ring = mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), 3)
    other = np.roll(ring, 4, axis=1)
    assert boundary_iou == pytest.approx((ring & other).sum() / (ring | other).sum())


class Exact:
    """Segmenter that knows the masks."""

    def __init__(self, mask):
        self.mask = mask

    def __call__(self, photo, boxes):
        for _ in boxes:
            yield self.mask, 1.0


def test_refinement_only_moves_boundaries():
    exact = np.zeros((120, 160), bool)
    exact[30:90, 40:120] = True
    label_map = np.full((120, 160), 5, np.uint8)
    label_map[100:] = 4
    truth = label_map.copy()
    truth[exact] = 1
    # The label map's human is two pixels too small on the left and two too large on the right.
    label_map[30:90, 42:122] = 1
    photo = PIL.Image.new("RGB", (160, 120))
    refined = Refiner(Exact(exact), classes=[1], band=0.02)(photo, label_map)
    assert np.array_equal(refined, truth)
    # Too far apart to be the same object, too small, or another class: nothing changes.
    for refiner in (
        Refiner(Exact(np.roll(exact, 60, axis=1)), classes=[1]),
        Refiner(Exact(exact), classes=[1], min_area=0.5),
        Refiner(Exact(exact), classes=[2]),
    ):
        assert np.array_equal(refiner(photo, label_map), label_map)
    # Ignored pixels and pixels far from the boundary stay.
    label_map[30:90, 40:42] = 255
    refined = Refiner(Exact(exact), classes=[1], band=0.02)(photo, label_map)
    assert (refined[30:90, 40:42] == 255).all()
    with pytest.raises(ValueError, match="band must be between 0 and 1, got 2"):
        Refiner(Exact(exact), band=2)


def test_the_commands(data, sam_hq, tmp_path):
    output = tmp_path / "trained"
    options = ("--model", sam_hq, "--output", output, "--use_cpu", "--disable_tqdm", "true")
    train = ("train-hq-sam", "--data", data, *options)
    run(*train, "--max_steps", "2", "--report_to", "none")
    assert transformers.AutoConfig.from_pretrained(output).model_type == "sam_hq"
    scores = tmp_path / "scores.json"
    printed = run("evaluate-hq-sam", "--data", data, "--model", output, "--output", scores, "--device", "cpu")
    assert "box, noise 0.4" in printed.output
    found = json.loads(scores.read_text())["prompts"]
    assert found["box"]["objects"] == 4
    assert found["10 points"]["objects"] == 12
    maps = tmp_path / "maps"
    maps.mkdir()
    for path in sorted((data / "validation" / "gt").glob("*.png")):
        with PIL.Image.open(path) as mask:
            mask.point(lambda value: value // 255).save(maps / path.name)
    refine = ("refine", data / "validation" / "im", "--label-maps", maps, "--model", output, "--device", "cpu")
    run(*refine, "--output", tmp_path / "refined", "--min-iou", "0")
    assert len(list((tmp_path / "refined").glob("*.png"))) == 4
    assert "4 of 4 are finished already" in run(*refine, "--output", tmp_path / "refined", "--min-iou", "0").output
    assert "4 again: another min_iou" in run(*refine, "--output", tmp_path / "refined").output
    assert "would replace the label maps" in run(*refine, "--output", maps, code=1).output
    assert "Unknown option --lerning_rate" in run(*train, "--lerning_rate", "1", code=1).output
    (tmp_path / "empty").mkdir()
    empty = run("train-hq-sam", "--data", tmp_path / "empty", *options, code=1)
    assert "contains neither annotations" in empty.output


def test_two_processes_learn_the_same(data, sam_hq, tmp_path):
    train = ["train-hq-sam", "--data", str(data), "--model", str(sam_hq), "--use_cpu", "--max_steps", "2"]
    train += ["--report_to", "none", "--learning_rate", "1e-5"]
    run(*train, "--output", tmp_path / "one", "--per_device_train_batch_size", "4")
    two = [*train, "--output", str(tmp_path / "two"), "--per_device_train_batch_size", "2"]
    run_command(two, tmp_path, processes=2)
    one, two = (transformers.SamHQModel.from_pretrained(tmp_path / name).state_dict() for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-6, rtol=1e-4)
