import contextlib
import json
import pickle

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import tiny_model
from transformers import AutoImageProcessor, pipeline
from transformers.modeling_outputs import ModelOutput

from transformers_massformer import MaSSFormerImageProcessor


MODES = ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]


def random_image(height, width, mode="RGB", seed=0):
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        return PIL.Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    image = PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return image.convert("L").convert(mode) if mode in ("I", "F") else image.convert(mode)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tiny_model()


# ---------------------------------------------------------------- preprocessing


def test_normalisation_and_padding():
    image = random_image(33, 70)
    pixel_values = MaSSFormerImageProcessor()(image, return_tensors="pt").pixel_values
    assert pixel_values.shape == (1, 3, 64, 96)
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    expected = ((np.asarray(image) - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(pixel_values[0, :, :33, :70].numpy(), expected, atol=1e-5)
    assert (pixel_values[0, :, 33:] == 0).all()
    assert (pixel_values[0, :, :, 70:] == 0).all()


def test_sizes_that_fit_are_not_padded():
    assert MaSSFormerImageProcessor()(random_image(64, 32), return_tensors="pt").pixel_values.shape == (1, 3, 64, 32)


def test_resize_is_on_request():
    processor = MaSSFormerImageProcessor(do_resize=True, size={"shortest_edge": 64, "longest_edge": 80})
    assert processor(random_image(40, 50), return_tensors="pt").pixel_values.shape == (1, 3, 64, 96)
    default = MaSSFormerImageProcessor()
    assert dict(default.size) == {"shortest_edge": 3072, "longest_edge": 4096}
    assert default(random_image(40, 50), return_tensors="pt").pixel_values.shape == (1, 3, 64, 64)
    square = default(random_image(40, 50), do_resize=True, size={"height": 32, "width": 33}, return_tensors="pt")
    assert square.pixel_values.shape == (1, 3, 32, 64)


# ---------------------------------------------------------------- options

REFUSED = [
    ({"do_reduce_labels": True}, "do_reduce_labels=True.*Subtract 1"),
    ({"reduce_labels": True}, "reduce_labels=True.*Subtract 1"),
    ({"do_normalise": False}, "does not read do_normalise. Did you mean do_normalize?"),
    ({"size_divisibility": 64}, "does not read size_divisibility.*It reads.*size_divisor"),
    ({"do_center_crop": True}, "do_center_crop=True"),
    ({"crop_size": 32}, "crop_size=32.*Crop images before"),
    ({"pad_size": {"height": 96, "width": 96}}, "pad_size.*size_divisor"),
    ({"data_format": "channels_last"}, "data_format=channels_last.*channels first"),
    ({"do_resize": "false"}, "`do_resize` must be true or false, got 'false'"),
]
# Fields that saved processors of other models and older versions have.
FOREIGN = {
    "_max_size": 1333,
    "_valid_processor_keys": ["images", "do_resize"],
    "crop_size": None,
    "data_format": "channels_first",
    "do_center_crop": False,
    "do_reduce_labels": False,
    "feature_extractor_type": "MaskFormerFeatureExtractor",
    "image_processor_type": "Mask2FormerImageProcessor",
    "processor_class": "SomeProcessor",
    "reduce_labels": False,
}


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_options_without_an_effect_are_refused(options, message, tmp_path):
    processor, image = MaSSFormerImageProcessor(), random_image(32, 32)
    processor.save_pretrained(tmp_path)
    for use in (
        lambda: MaSSFormerImageProcessor(**options),
        lambda: processor(image, **options),
        lambda: processor.preprocess([image], **options),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    if "size_divisibility" not in options:
        with pytest.raises(ValueError, match=next(iter(options))):
            MaSSFormerImageProcessor.from_pretrained(tmp_path, **options)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **options}))
    with pytest.raises(ValueError, match=message):
        AutoImageProcessor.from_pretrained(tmp_path)


def test_saved_processors_of_other_models_load(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**FOREIGN, "do_resize": True, "num_labels": 9}))
    # Arguments for the model, which the pipeline passes on.
    model_arguments = {"dtype": torch.float32, "device_map": "cpu", "trust_remote_code": False}
    processor = MaSSFormerImageProcessor.from_pretrained(tmp_path, **model_arguments)
    assert (processor.do_resize, processor.num_labels) == (True, 9)
    assert not processor.to_dict().keys() & {"do_reduce_labels", "reduce_labels", "do_center_crop", "crop_size"}
    processor.save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict() == pickle.loads(pickle.dumps(processor)).to_dict()


# Values between 0 and 1, with black and white.
UNIT = np.linspace(0, 1, 32 * 32 * 3).reshape(32, 32, 3)
NORMALIZED = (UNIT - 0.45) / 0.225
VALUES = {
    "uint8": ((UNIT * 255).astype(np.uint8), {}, None),
    "dark uint8": ((UNIT > 0.5).astype(np.uint8), {}, None),
    "uint8 in uint16": ((UNIT * 255).astype(np.uint16), {}, None),
    "int64": ((UNIT * 255).astype(np.int64), {}, None),
    "float": ((UNIT * 255).astype(np.float32), {}, None),
    "black float": (np.zeros((32, 32, 3), np.float32), {}, None),
    "resized float": ((UNIT * 300 - 20), {}, None),
    "float from 0 to 1": (UNIT.astype(np.float32), {}, "float32 range from 0 to 1.*pass `do_rescale=False`"),
    "double from 0 to 1": (UNIT, {}, "float64 range from 0 to 1"),
    "half from 0 to 1": (UNIT.astype(np.float16), {}, "float16 range from 0 to 1"),
    "normalized": (NORMALIZED.astype(np.float32), {}, "small negative values, like normalized"),
    "float of 16 bits": (UNIT * 65535, {}, "far outside 0 to 255"),
    "float not rescaled": (UNIT, {"do_rescale": False}, None),
    "normalized as it is": (NORMALIZED, {"do_rescale": False, "do_normalize": False}, None),
    "uint8 not rescaled": ((UNIT * 255).astype(np.uint8), {"do_rescale": False}, "uint8 are normalized without"),
    "float to 255 not rescaled": (UNIT * 255, {"do_rescale": False}, "far above 1 and are normalized"),
    "uint8 with means of 255": ((UNIT * 255).astype(np.uint8), {"do_rescale": False, "image_mean": [124.0] * 3}, None),
    "uint8 untouched": ((UNIT * 255).astype(np.uint8), {"do_rescale": False, "do_normalize": False}, None),
    "16 bits": ((UNIT * 65535).astype(np.uint16), {"rescale_factor": 1 / 65535}, None),
}


@pytest.mark.parametrize("kind", ["array", "tensor", "list"])
@pytest.mark.parametrize("name", VALUES)
def test_values_on_another_scale_cause_a_warning(name, kind):
    image, options, warning = VALUES[name]
    if kind == "tensor":
        image = torch.from_numpy(image).movedim(-1, 0)
    expected = contextlib.nullcontext() if warning is None else pytest.warns(UserWarning, match=warning)
    with expected:
        MaSSFormerImageProcessor()([image] if kind == "list" else image, return_tensors="pt", **options)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ((UNIT * 65535).astype(np.uint16), "uint16 must have values from 0 to 255.*65535.*rescale_factor=1 / 65535"),
        ((UNIT * 255).astype(np.int32) - 128, "int32 must have values from 0 to 255.*got -128 to 127"),
        (UNIT > 0.5, "got booleans"),
        (np.where(UNIT > 0.5, np.nan, UNIT), "finite values"),
        (np.where(UNIT > 0.5, np.inf, UNIT).astype(np.float16), "finite values"),
    ],
)
def test_values_that_are_no_photograph_are_refused(image, message):
    for each in (image, torch.from_numpy(image).movedim(-1, 0)):
        with pytest.raises(ValueError, match=message):
            MaSSFormerImageProcessor()(each, return_tensors="pt")


def test_segmentation_maps_of_fractions_are_refused():
    processor, image = MaSSFormerImageProcessor(), random_image(32, 32)
    labels = np.full((32, 32), 3.0, np.float32)
    assert (processor(image, segmentation_maps=labels, return_tensors="pt").labels == 3).all()
    for wrong in (labels / 255, labels + 0.5):
        with pytest.raises(ValueError, match="must contain class indices, got fractions, such as"):
            processor(image, segmentation_maps=wrong, return_tensors="pt")


# ---------------------------------------------------------------- segmentation maps


def test_segmentation_maps_become_labels():
    label_map = np.random.default_rng(0).choice([0, 3, 6, 255], (33, 40)).astype(np.uint8)
    inputs = MaSSFormerImageProcessor()(random_image(33, 40), PIL.Image.fromarray(label_map), return_tensors="pt")
    assert inputs.labels.dtype == torch.int64
    assert inputs.labels.shape == (1, 64, 64)
    assert np.array_equal(inputs.labels[0, :33, :40].numpy(), label_map)
    assert (inputs.labels[0, 33:] == 255).all()
    assert (inputs.labels[0, :, 40:] == 255).all()
    from_array = MaSSFormerImageProcessor()(random_image(33, 40), label_map, return_tensors="pt")
    assert torch.equal(from_array.labels, inputs.labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_labels_are_resized_to_the_nearest(dtype):
    label_map = np.repeat(np.repeat(np.array([[0, 6], [255, 2]], dtype=dtype), 16, 0), 16, 1)
    inputs = MaSSFormerImageProcessor()(
        random_image(32, 32), label_map, do_resize=True, size={"height": 64, "width": 64}, return_tensors="pt"
    )
    assert np.array_equal(inputs.labels[0].numpy(), label_map.repeat(2, 0).repeat(2, 1))


def test_bad_segmentation_maps_are_refused():
    processor, image = MaSSFormerImageProcessor(), random_image(32, 32)
    label_map = np.zeros((32, 32), np.uint8)
    label_map[0, :3] = [7, 9, 254]
    with pytest.raises(
        ValueError, match=r"map 0 contains values outside the classes: \[7, 9, 254\].*0 to 6 and 255.*`num_labels`"
    ):
        processor(image, label_map)
    assert processor(image, label_map, num_labels=255).labels[0].max() == 254
    with pytest.raises(ValueError, match=r"\[-1\]"):
        processor(image, np.full((32, 32), -1))
    with pytest.raises(ValueError, match=r"size, \(height, width\) = \(32, 32\).*got shape \(1, 16, 32\)"):
        processor(image, np.zeros((16, 32), np.uint8))
    with pytest.raises(ValueError, match="2 images but 1 segmentation maps"):
        processor([image, image], [np.zeros((32, 32), np.uint8)])


def test_different_padded_sizes_are_refused_with_the_sizes():
    images = [random_image(32, 40), random_image(64, 40)]
    with pytest.raises(ValueError, match=r"\[\(32, 64\), \(64, 64\)\].*one by one"):
        MaSSFormerImageProcessor()(images)
    same = MaSSFormerImageProcessor()([random_image(33, 40), random_image(64, 64)], return_tensors="pt")
    assert same.pixel_values.shape == (2, 3, 64, 64)


def test_save_and_load(tmp_path):
    MaSSFormerImageProcessor(num_labels=3, size_divisor=64).save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, MaSSFormerImageProcessor)
    assert (loaded.num_labels, loaded.size_divisor, loaded.do_resize) == (3, 64, False)


# ---------------------------------------------------------------- label maps at the image's size


@settings(max_examples=25, deadline=None)
@given(
    st.one_of(
        st.tuples(st.integers(1, 70), st.integers(1, 70)),
        st.tuples(st.just(1), st.integers(1, 5000)),
        st.tuples(st.integers(1, 5000), st.just(1)),
    ),
    st.sampled_from(MODES),
)
def test_any_image_gets_a_label_map_of_its_size(model, size, mode):
    image = random_image(*size, mode)
    processor = MaSSFormerImageProcessor()
    with torch.no_grad():
        outputs = model(**processor(image, return_tensors="pt"))
    (label_map,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])
    assert label_map.shape == size
    assert 0 <= label_map.min() <= label_map.max() <= 6


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 4, 3), (1, 5, 4), (4, 1, 3), (3, 3, 3)])
def test_small_arrays_are_channels_last(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    processor = MaSSFormerImageProcessor(do_normalize=False, do_rescale=False)
    pixel_values = processor(array, return_tensors="pt").pixel_values
    assert pixel_values.shape == (1, 3, 32, 32)
    if shape[2] == 3:
        assert np.array_equal(pixel_values[0, :, : shape[0], : shape[1]].permute(1, 2, 0).numpy(), array)
        channels_first = processor(torch.from_numpy(array).permute(2, 0, 1), return_tensors="pt").pixel_values
        assert torch.equal(pixel_values, channels_first)


def test_grey_values_of_16_bits_survive():
    image = PIL.Image.fromarray(np.full((32, 32), 32768, dtype=np.uint16))
    processor = MaSSFormerImageProcessor(do_normalize=False, do_rescale=False)
    assert (processor(image, return_tensors="pt").pixel_values == 128).all()


def test_read_only_arrays_are_accepted():
    array = np.asarray(random_image(32, 32))
    array.flags.writeable = False
    assert MaSSFormerImageProcessor()(array, return_tensors="pt").pixel_values.shape == (1, 3, 32, 32)


def fake_outputs(height, width, batch_size=1):
    return ModelOutput(
        class_queries_logits=torch.randn(batch_size, 9, 8),
        masks_queries_logits=torch.randn(batch_size, 9, height, width),
    )


def test_post_processing_sizes_and_scores():
    processor, outputs = MaSSFormerImageProcessor(), fake_outputs(16, 32, batch_size=2)
    padded = processor.post_process_semantic_segmentation(outputs)
    assert [tuple(x.shape) for x in padded] == [(32, 64)] * 2
    own = processor.post_process_semantic_segmentation(outputs, target_sizes=[(20, 50), (32, 33)])
    assert torch.equal(own[0], padded[0][:20, :50])
    assert torch.equal(own[1], padded[1][:, :33])
    tensor_sizes = torch.tensor([[20, 50], [32, 33]])
    scored = processor.post_process_semantic_segmentation(outputs, tensor_sizes, return_segmentation_scores=True)
    assert torch.equal(scored[0].segmentation, own[0])
    assert scored[0].segmentation_scores.shape == (7, 20, 50)
    assert torch.equal(scored[1].segmentation_scores.argmax(0), own[1])


def test_post_processing_undoes_the_resize():
    """Check that a mask of constant slope is read at its original position, whatever size the model saw."""
    processor = MaSSFormerImageProcessor()
    size = {"shortest_edge": 60, "longest_edge": 90}
    # (height, width) = (40, 60) becomes (60, 90), padded to (64, 96); half resolution (32, 48).
    columns = (torch.arange(48) + 0.5) * 2 / 90 * 60
    outputs = ModelOutput(
        class_queries_logits=torch.tensor([[[9.0, -9.0, -9.0], [-9.0, 9.0, -9.0]]]),
        masks_queries_logits=torch.stack((columns - 30, 30 - columns))[None, :, None].expand(-1, -1, 32, -1),
    )
    expected = (torch.arange(60) + 0.5 < 30).long().expand(40, -1)
    for resizing, kwargs in (
        (processor, {"size": size}),
        (MaSSFormerImageProcessor(do_resize=True, size=size), {}),
        (processor, {"size": {"height": 60, "width": 90}}),
        (processor, {"size": {"shortest_edge": 60}}),
        (processor, {"size": {"max_height": 60, "max_width": 200}}),
    ):
        assert torch.equal(resizing.post_process_semantic_segmentation(outputs, [(40, 60)], **kwargs)[0], expected)


def test_impossible_target_sizes_are_refused():
    processor, outputs = MaSSFormerImageProcessor(), fake_outputs(16, 32)
    with pytest.raises(ValueError, match="2 target sizes for a batch of 1"):
        processor.post_process_semantic_segmentation(outputs, [(1, 1), (2, 2)])
    with pytest.raises(ValueError, match="Image 0 was 64 x 32 pixels.*only 32 x 64.*height, width"):
        processor.post_process_semantic_segmentation(outputs, [(64, 32)])


def test_pipeline_gives_masks_of_the_photo_s_size(model, tmp_path, caplog):
    model.save_pretrained(tmp_path / "model")
    MaSSFormerImageProcessor().save_pretrained(tmp_path / "model")
    random_image(45, 71).save(tmp_path / "photo.png")
    transformers.logging.enable_propagation()
    try:
        pipe = pipeline("image-segmentation", model=str(tmp_path / "model"))
        from_file, from_memory = pipe(str(tmp_path / "photo.png")), pipe(random_image(45, 71))
    finally:
        transformers.logging.disable_propagation()
    assert [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
    for masks in (from_file, from_memory):
        assert {mask["label"] for mask in masks} <= set(model.config.id2label.values())
        assert all(mask["mask"].size == (71, 45) and mask["mask"].mode == "L" for mask in masks)
        assert (sum(np.asarray(mask["mask"]).astype(int) for mask in masks) == 255).all()
