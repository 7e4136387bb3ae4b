import json

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from support.commands import run
from support.replica import write_pair
from support.resizing import resized_densely
from support.tiny_data import photo
from support.tiny_peers import PEERS
from transformers import AutoConfig, AutoImageProcessor

from transformers_massformer import open_image
from transformers_massformer.inference.loading import auto_class
from transformers_massformer.inference.predictor import ModelPredictor, PredictionOptions, task_inputs
from transformers_massformer.inference.segmenter import Segmenter
from transformers_massformer.inference.tiling import plan_tiles
from transformers_massformer.models.semantic_readout import read_general_map
from transformers_massformer.training import MaSSFormerTrainer, MaSSFormerTrainingArguments


def dense_scores(model, pixel_values, valid_size, target_size, **inputs):
    """Scores of all classes: everything resized at once, in float64."""
    with torch.no_grad():
        outputs = model(pixel_values=pixel_values, **inputs)
    is_query_model = hasattr(outputs, "class_queries_logits")
    maps = outputs.masks_queries_logits if is_query_model else outputs.logits
    maps = resized_densely(maps, pixel_values.shape[-2:], valid_size, target_size)
    if not is_query_model:
        return maps[0].softmax(0)
    classes = outputs.class_queries_logits[0].double().softmax(-1)[:, :-1]
    return torch.einsum("qc,qhw->chw", classes, maps[0].sigmoid())


def assert_agrees(label_map, scores):
    best = scores.topk(2, dim=0).values
    clear = best[0] - best[1] > 1e-4
    assert clear.float().mean() > 0.5
    assert torch.equal(label_map[clear].long(), scores.argmax(0)[clear])


@pytest.mark.parametrize("name", [name for name in PEERS if name != "eomt"])
def test_label_maps_are_read_at_native_size_exactly(peers, name):
    image, folder = photo(), peers(name)
    predictor = ModelPredictor.load(folder, "cpu")
    processor = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=image, return_tensors="pt")
    mask = inputs.get("pixel_mask", torch.ones(1, *inputs["pixel_values"].shape[-2:]))[0]
    valid_size = (
        (80, 96) if name in ("massformer", "semask", "baseline") else (int(mask[:, 0].sum()), int(mask[0].sum()))
    )
    scores = dense_scores(predictor.model, inputs["pixel_values"], valid_size, (80, 96), **predictor.constant_inputs)
    assert_agrees(predictor(image), scores)


@pytest.mark.parametrize("name", ["massformer", "mask2former", "segformer"])
def test_native_input_is_normalised_and_padded_only(peers, name):
    image, folder = photo(99, 70), peers(name)
    predictor = ModelPredictor.load(folder, "cpu", options=PredictionOptions(native_input=True))
    processor = AutoImageProcessor.from_pretrained(folder)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (processor.image_mean, processor.image_std))
    pixels = (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - mean) / std
    scores = dense_scores(predictor.model, F.pad(pixels, (0, 29, 0, 26))[None], (70, 99), (70, 99))
    assert_agrees(predictor(image), scores)


def test_white_shows_where_a_processor_pads(peers):
    predictor = ModelPredictor.load(peers("massformer"), "cpu")
    inputs, valid_size = predictor.processed_inputs(photo(99, 70))
    assert inputs["pixel_values"].shape[-2:] == (96, 128)
    assert valid_size == (70, 99)


def test_scales_and_flips_are_averaged(peers):
    image = photo(96, 64)
    predictor = ModelPredictor.load(
        peers("segformer"), "cpu", options=PredictionOptions(scales=(0.5, 1.0, 1.5), flip=True)
    )
    total = 0
    for scale in (0.5, 1.0, 1.5):
        size = (round(96 * scale), round(64 * scale))
        resized = image.resize(size, PIL.Image.Resampling.BILINEAR)
        for mirrored in (False, True):
            view = resized.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else resized
            inputs, valid_size = predictor.native_inputs(view)
            scores = dense_scores(predictor.model, inputs["pixel_values"], valid_size, (64, 96))
            total = total + (scores.flip(-1) if mirrored else scores)
    assert_agrees(predictor(image), total / 6)


@pytest.mark.parametrize("name", ["mask2former", "oneformer", "segformer"])
def test_the_peer_s_own_post_processing(peers, name):
    image, folder = photo(), peers(name)
    predictor = ModelPredictor.load(folder, "cpu", options=PredictionOptions(peer_postprocess=True))
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        inputs = {**processor(images=image, return_tensors="pt"), **predictor.constant_inputs}
        outputs = predictor.model(**inputs)
    expected = processor.post_process_semantic_segmentation(outputs, target_sizes=[(80, 96)])[0]
    assert torch.equal(predictor(image).long(), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tile": 32},
        {"tile": 128, "overlap": 128},
        {"overlap": 4},
        {"scales": ()},
        {"scales": (0.0,)},
        {"scales": (float("inf"),)},
        {"scales": (float("nan"),)},
        {"peer_postprocess": True, "flip": True},
        {"inference": "hard"},
        {"inference": "general", "flip": True},
    ],
)
def test_options_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        PredictionOptions(**wrong)


def trainer_model(name, folder):
    """A model as it is during training, not fused, and its processor."""
    model = auto_class(AutoConfig.from_pretrained(folder)).from_pretrained(folder)
    return model.eval(), AutoImageProcessor.from_pretrained(folder)


@pytest.mark.parametrize("name", PEERS)
def test_tiles_are_segmented_one_by_one_and_cut_in_the_middle_of_what_they_share(peers, name):
    image, options = photo(150, 100), PredictionOptions(tile=64, overlap=16)
    predictor = ModelPredictor.load(peers(name), "cpu", options=options)
    alone = ModelPredictor.load(peers(name), "cpu", options=PredictionOptions(native_input=True))
    expected = torch.full((100, 150), 255, dtype=torch.uint8)
    for top, bottom, first_row, last_row in ((0, 64, 0, 50), (36, 100, 50, 100)):
        # Three tiles start at 0, 43 and 86, evenly spread; what neighbours share is cut at its middle.
        for left, right, first, last in ((0, 64, 0, 53), (43, 107, 53, 96), (86, 150, 96, 150)):
            part = alone(image.crop((left, top, right, bottom)))[first_row - top : last_row - top]
            expected[first_row:last_row, first:last] = part[:, first - left : last - left]
    assert torch.equal(predictor(image), expected)


def test_mattes_and_general_inference_take_the_same_tiles(peers):
    image, folder = photo(150, 100), peers("mask2former")
    label_map = ModelPredictor.load(folder, "cpu", options=PredictionOptions(tile=64)).predict(image, mattes=True)
    assert label_map.mattes.shape == (7, 100, 150)
    best = torch.from_numpy(label_map.mattes.astype(np.int64))
    # Mattes are rounded to 8 bits.
    assert (best.gather(0, label_map.label_map.long()[None])[0] >= best.amax(0) - 1).all()
    general = ModelPredictor.load(folder, "cpu", options=PredictionOptions(tile=64, inference="general"))
    alone = ModelPredictor.load(folder, "cpu", options=PredictionOptions(native_input=True, inference="general"))
    tile = next(plan_tiles(100, 150, 64))
    assert torch.equal(general(image)[tile.kept], alone(image.crop(tile.box))[tile.kept_in_tile])


@pytest.mark.parametrize("size", [(160, 100), (70, 131), (64, 64)])
def test_eomt_is_read_as_its_own_processor_reads_it(peers, size):
    image = photo(*size)
    predictor = ModelPredictor.load(peers("eomt"), "cpu")
    processor = AutoImageProcessor.from_pretrained(peers("eomt"))
    with torch.no_grad():
        inputs = processor(images=image, return_tensors="pt")
        outputs = predictor.model(**inputs)
    (own,) = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[(size[1], size[0])], return_segmentation_scores=True
    )
    assert_agrees(predictor(image), own.segmentation_scores.double())
    peer = ModelPredictor.load(peers("eomt"), "cpu", options=PredictionOptions(peer_postprocess=True))
    assert torch.equal(peer(image).long(), own.segmentation)
    mirrored = ModelPredictor.load(peers("eomt"), "cpu", options=PredictionOptions(flip=True))
    assert mirrored.average_scores(image).shape == (7, size[1], size[0])
    with pytest.raises(ValueError, match="its own size; leave out the scales"):
        ModelPredictor.load(peers("eomt"), "cpu", options=PredictionOptions(scales=(0.5, 1.0)))


def segment_and_evaluate(folder, root, output, *options, of_maps=()):
    """Write label maps, and score both the model and these maps."""
    common = ("--device", "cpu", *options)
    run("segment", root / "images_pad" / "val", "--model", folder, "--output", output / "maps", *common)
    scored = ("--data", root, "--split", "val", "--profile-size", "0", "--worst", "0")
    run("evaluate", "--model", folder, "--output", output / "of_model", *scored, *common)
    run("evaluate", "--model", output / "maps", "--output", output / "of_maps", *scored, *of_maps)
    return output


@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize("name", PEERS)
def test_segment_evaluate_and_the_trainer_give_the_same_label_map(peers, name, tile, tmp_path):
    """Byte for byte: the photograph of `segment`, the counts of `evaluate`, and the predictor of the trainer."""
    folder, root = peers(name), tmp_path / "data"
    write_pair(root, "val", "a", (150, 100))
    options = ("--native-input",) if tile is None else ("--tile", tile)
    output = segment_and_evaluate(folder, root, tmp_path, *options)
    written = np.asarray(PIL.Image.open(tmp_path / "maps" / "a.png"))
    records = [next((output / each / "records").glob("*.jsonl")).read_text() for each in ("of_model", "of_maps")]
    counts = [json.loads(record)["counts"] for record in records]
    assert counts[0] == counts[1]
    model, processor = trainer_model(name, folder)
    photo_file = next((root / "images_pad" / "val").glob("*"))
    trainer = MaSSFormerTrainer(
        model=model,
        args=MaSSFormerTrainingArguments(
            str(tmp_path / "o"), eval_tile=tile, use_cpu=True, report_to=[], dataloader_num_workers=0
        ),
        eval_dataset=[{"image": photo_file, "label": root / "annotations" / "val" / "a.png"}],
        processing_class=processor,
        constant_inputs=task_inputs(folder, torch.device("cpu")) if name == "oneformer" else None,
    )
    scores = json.loads((output / "of_model" / "results.json").read_text())["scores"]
    assert trainer.evaluate()["eval_mean_boundary_iou"] == pytest.approx(scores["mean_boundary_iou"], abs=1e-12)
    assert np.array_equal(trainer.predictor()(open_image(photo_file)).numpy(), written)


def test_a_peer_s_own_post_processing_is_an_option_of_both_commands(peers, tmp_path):
    root = tmp_path / "data"
    write_pair(root, "val", "a", (150, 100))
    output = segment_and_evaluate(peers("mask2former"), root, tmp_path, "--peer-postprocess")
    results = [json.loads((output / each / "results.json").read_text()) for each in ("of_model", "of_maps")]
    assert results[0]["scores"] == results[1]["scores"]
    own = ModelPredictor.load(peers("mask2former"), "cpu", options=PredictionOptions(peer_postprocess=True))
    written = np.asarray(PIL.Image.open(tmp_path / "maps" / "a.png"))
    assert np.array_equal(own(open_image(next((root / "images_pad" / "val").glob("*")))).numpy(), written)
    with pytest.raises(ValueError, match="post-processing"):
        Segmenter(own, mattes=True)


def test_label_maps_of_general_inference_are_scored_as_written(peers, tmp_path, monkeypatch):
    def half_unlabelled(*arguments, **options):
        label_map = read_general_map(*arguments, **options)
        label_map[:, :75] = 255
        return label_map

    monkeypatch.setattr("transformers_massformer.inference.predictor.read_general_map", half_unlabelled)
    root, general = tmp_path / "data", ("--inference", "general")
    write_pair(root, "val", "a", (150, 100))
    output = segment_and_evaluate(peers("mask2former"), root, tmp_path, *general, of_maps=general)
    assert (np.asarray(PIL.Image.open(output / "maps" / "a.png")) == 255).any()
    scores = [json.loads((output / each / "results.json").read_text())["scores"] for each in ("of_model", "of_maps")]
    assert scores[0] == scores[1]
    common = ("--data", root, "--split", "val", "--profile-size", "0", "--model", output / "maps")
    refused = run("evaluate", *common, "--output", output / "refused", code=1)
    assert "marks pixels without a class, pass --inference general" in refused.output.replace("\n", " ")


@pytest.mark.parametrize("name", ["segformer", "upernet", "semask", "baseline", "eomt"])
def test_models_without_queries_refuse_general_inference_when_they_are_loaded(peers, name):
    with pytest.raises(ValueError, match="semantic inference"):
        ModelPredictor.load(peers(name), "cpu", options=PredictionOptions(inference="general"))
