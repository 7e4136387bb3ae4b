import json
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from support.commands import run
from support.tiny import TINY_SWIN, TINY_TIMM, tiny_model
from support.tiny_data import smooth_photo as photo
from support.tiny_data import write_pair
from torch import nn
from transformers import SegformerImageProcessor

from transformers_massformer import MaSSFormerImageProcessor
from transformers_massformer.export import ExportOptions, OnnxPredictor, check, export_onnx, job, runtime
from transformers_massformer.export.network import FixedPaddingConv2d, fix_padding
from transformers_massformer.export.photograph import GraphWriter, write_preparation, write_read_out
from transformers_massformer.inference.predictor import ModelPredictor, PredictionOptions
from transformers_massformer.inference.segmenter import Segmenter
from transformers_massformer.models.semantic_readout import read_semantic_map


onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "SIZE", (160, 96))
        patch.setattr(job, "SCENE_SIZES", ((70, 45), (128, 96)))
        yield


@pytest.fixture(scope="module")
def model_folder(peers):
    return peers("massformer")


@pytest.fixture(scope="module")
def dynamic(model_folder, tmp_path_factory):
    """A graph for any size, written by the command, and what it printed."""
    path = tmp_path_factory.mktemp("dynamic") / "model.onnx"
    return path, run("export", "--model", model_folder, "--output", path, "--dynamic").output


@pytest.fixture(scope="module")
def static_queries(model_folder, tmp_path_factory):
    """A graph for one size with plain operators in half precision, which stops before the read-out."""
    path = tmp_path_factory.mktemp("static") / "queries.onnx"
    options = ExportOptions(opset=22, size=(70, 45), half=True, plain_operators=True, queries=True)
    return path, export_onnx(model_folder, path, options)


class Runtime:
    """Stands for ONNX Runtime on a machine with GPUs, which computes on the CPU where a provider does not start."""

    def __init__(self, starts: bool = True):
        self.starts, self.SessionOptions, self.providers = starts, onnxruntime.SessionOptions, None

    def get_available_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, path, options, providers):
        self.providers = providers
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        found = [providers[0][0]] if self.starts else ["CPUExecutionProvider"]
        session.get_providers = lambda: found
        return session


@pytest.mark.parametrize(
    ("device", "options", "provider"),
    [
        (None, None, ("CPUExecutionProvider", {})),
        ("cpu", {"use_arena": "0"}, ("CPUExecutionProvider", {"use_arena": "0"})),
        ("cuda", None, ("CUDAExecutionProvider", {})),
        ("cuda:1", None, ("CUDAExecutionProvider", {"device_id": "1"})),
        ("cuda:0", {"gpu_mem_limit": "1"}, ("CUDAExecutionProvider", {"device_id": "0", "gpu_mem_limit": "1"})),
    ],
)
def test_the_device_is_the_one_asked_for(dynamic, monkeypatch, device, options, provider):
    fake = Runtime()
    monkeypatch.setattr(runtime, "onnx_runtime", lambda: fake)
    predictor = OnnxPredictor(dynamic[0], device, provider_options=options)
    assert fake.providers == [provider]
    assert str(predictor.device) == (device or "cpu")


@pytest.mark.parametrize(
    ("device", "starts", "message"),
    [
        ("cuda:1", False, "cannot compute on cuda:1: its CUDAExecutionProvider did not start"),
        ("mps", True, "does not compute on mps here; it has CUDAExecutionProvider"),
        ("cpu:1", True, "has one CPU, not cpu:1"),
        ("gpu", True, "'gpu' is no device"),
    ],
)
def test_a_device_that_there_is_not_is_refused(dynamic, monkeypatch, device, starts, message):
    monkeypatch.setattr(runtime, "onnx_runtime", lambda: Runtime(starts))
    with pytest.raises(ValueError, match=message):
        OnnxPredictor(dynamic[0], device)


@pytest.mark.parametrize(
    "option", [["--dtype", "float32"], ["--flip"], ["--scales", "1,2"], ["--peer-postprocess"], ["--device", "cuda:1"]]
)
def test_options_that_a_graph_does_not_read_are_refused(dynamic, tmp_path, option):
    photo(40, 30).save(tmp_path / "a.png")
    arguments = ("--model", dynamic[0], "--output", tmp_path / "out", *option)
    run("segment", tmp_path / "a.png", *arguments, code=1)
    assert not list((tmp_path / "out").iterdir())


def test_nothing_of_the_exporting_machine_is_in_the_file(dynamic):
    assert b".py" not in dynamic[0].read_bytes()
    assert dynamic[0].stat().st_size < 2**20


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node}


def test_the_report_beside_the_file(dynamic):
    path, printed = dynamic
    report = json.loads(path.with_suffix(".json").read_text())
    assert report["outputs"] == ["label_map"]
    assert [(each["width"], each["height"]) for each in report["agreement"]] == [(70, 45), (128, 96)]
    for each in report["agreement"]:
        assert each["argmax_agreement"] >= 0.9999
        assert 0 < each["mask_difference"] < 1e-3
        assert 0 < each["class_difference"] < 1e-3
    performance = report["performance"]
    assert (performance["width"], performance["height"]) == (160, 96)
    assert performance["seconds"] > 0
    assert performance["peak_bytes"] > 10 * 2**20
    assert report["bytes"] == path.stat().st_size
    assert "same label at 100.0000% of the pixels" in printed
    assert "160 x 96 pixels on the CPU" in printed


@pytest.mark.parametrize("size", [(70, 45), (1, 1), (33, 31), (200, 64), (224, 161)])
def test_one_file_agrees_with_torch_at_any_size(model_folder, dynamic, size):
    segmenter = Segmenter(OnnxPredictor(dynamic[0]))
    picture = photo(*size)
    expected, found = Segmenter(model_folder, "cpu")(picture), segmenter(picture)
    assert found.label_map.dtype == np.uint8
    assert found.label_map.shape == (size[1], size[0])
    assert np.mean(found.label_map == expected.label_map) >= 0.9999
    assert segmenter.labels == Segmenter(model_folder, "cpu").labels


def test_the_graph_has_what_was_asked_for(dynamic, static_queries):
    onnx.checker.check_model(onnx.load(dynamic[0]), full_check=True)
    assert "DeformConv" in operators(dynamic[0])
    plain = operators(static_queries[0])
    assert "GridSample" in plain
    assert "DeformConv" not in plain
    for path, opset in ((dynamic[0], 20), (static_queries[0], 22)):
        assert [(x.domain, x.version) for x in onnx.load(path).opset_import if not x.domain] == [("", opset)]
    half = [x for x in onnx.load(static_queries[0]).graph.initializer if x.data_type == onnx.TensorProto.FLOAT16]
    assert sum(int(np.prod(x.dims)) for x in half) > 10_000


def test_queries_are_those_of_the_model_to_half_precision(model_folder, static_queries):
    path, report = static_queries
    (found,) = report["agreement"]
    assert found["argmax_agreement"] > 0.97
    assert 1e-5 < found["mask_difference"] < 0.3
    picture = photo(70, 45)
    segmenter, reference = Segmenter(OnnxPredictor(path), mattes=True), Segmenter(model_folder, "cpu", mattes=True)
    found, expected = segmenter(picture), reference(picture)
    assert np.mean(found.label_map == expected.label_map) > 0.97
    assert np.abs(found.mattes.astype(int) - expected.mattes).max() < 8
    assert found.mattes.shape == (7, 45, 70)


def test_a_graph_for_one_size_refuses_others(static_queries):
    with pytest.raises(ValueError, match=r"takes photographs of 70 x 45 pixels, not of 71 x 45.*--dynamic"):
        OnnxPredictor(static_queries[0])(photo(71, 45))


@pytest.mark.parametrize("options", [{"tile": 64}, {"tile": 64, "overlap": 30}])
def test_both_engines_take_the_same_tiles(model_folder, dynamic, options):
    picture, options = photo(150, 90), PredictionOptions(**options)
    expected = ModelPredictor.load(model_folder, "cpu", options=options)(picture)
    found = OnnxPredictor(dynamic[0], options=options)(picture)
    assert (found == expected).float().mean() >= 0.9999


def test_the_graph_decides_how_photographs_are_read(dynamic):
    with pytest.raises(ValueError, match="leave out flip, scales"):
        OnnxPredictor(dynamic[0], options=PredictionOptions(scales=(0.5, 1.0), flip=True))


def test_an_exported_model_is_evaluated_as_the_model(model_folder, dynamic, tmp_path):
    write_pair(tmp_path / "data", "val", "a", seed=0)
    scored = ("--data", tmp_path / "data", "--device", "cpu", "--profile-size", "0", "--worst", "0", "--tile", "64")
    results = []
    for name, model in (("torch", model_folder), ("onnx", dynamic[0])):
        run("evaluate", "--model", model, "--output", tmp_path / name, *scored)
        results.append(json.loads((tmp_path / name / "results.json").read_text())["scores"]["mean_iou"])
    assert results[0] == pytest.approx(results[1], rel=1e-3)


def test_photographs_are_segmented_without_torch_s_model(model_folder, dynamic, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for index, size in enumerate(((70, 45), (1, 1), (120, 95))):
        photo(*size, seed=index).save(tmp_path / "photos" / f"{index}.png")
    expected = {
        path.stem: Segmenter(model_folder, "cpu")(PIL.Image.open(path)).label_map
        for path in (tmp_path / "photos").iterdir()
    }

    def refuse(*arguments):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("transformers_massformer.inference.loading.load_model", refuse)
    command = ("segment", tmp_path / "photos", "--model", dynamic[0], "--output", tmp_path / "out")
    run(*command, "--overlay")
    for name, label_map in expected.items():
        found = np.asarray(PIL.Image.open(tmp_path / "out" / f"{name}.png"))
        assert np.mean(found == label_map) >= 0.9999
        assert (tmp_path / "out" / f"{name}_overlay.png").exists()
    assert "3 of 3 are finished already" in run(*command, "--overlay").output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mattes"], "gives label maps without scores"),
        (["--show-semantic-priors"], "has no semantic layers"),
        (["--dtype", "bfloat16"], "has a fixed precision"),
        (["--device", "mps"], "ONNX Runtime does not compute on mps here"),
    ],
)
def test_what_a_label_map_graph_cannot_give(dynamic, tmp_path, options, message):
    photo(8, 8).save(tmp_path / "a.png")
    command = ("segment", tmp_path / "a.png", "--model", dynamic[0], "--output", tmp_path / "out")
    assert message in run(*command, *options, code=1).output


def test_an_error_of_the_runtime_ends_an_evaluation_in_one_line(dynamic, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("ONNX Runtime cannot run the model")

    monkeypatch.setattr(OnnxPredictor, "run", fail)
    write_pair(tmp_path / "data", "val", "a", seed=0)
    arguments = ("--model", dynamic[0], "--data", tmp_path / "data", "--output", tmp_path / "out", "--device", "cpu")
    assert "error: ONNX Runtime cannot run the model" in run("evaluate", *arguments, code=1).output


def test_files_that_are_no_exported_models(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nothing.onnx"):
        OnnxPredictor(tmp_path / "nothing.onnx")
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"garbage.onnx is not an ONNX model"):
        OnnxPredictor(tmp_path / "garbage.onnx")
    info = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "g", [info], [other])
    foreign = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match=r"foreign.onnx was not written by `massformer export`"):
        OnnxPredictor(tmp_path / "foreign.onnx")


def test_a_graph_that_disagrees_is_not_written(model_folder, dynamic, static_queries, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "LEAST_AGREEMENT", 1.1)
    graphs = onnx.load(static_queries[0]), onnx.load(dynamic[0])
    monkeypatch.setattr(job, "build_graphs", lambda model, options: graphs)
    photo(70, 45).save(tmp_path / "photo.png")
    path, options = tmp_path / "model.onnx", ExportOptions(size=(70, 45))
    with pytest.raises(ValueError, match=r"agree on only 100.* of the pixels of photo.png \(70 x 45\)"):
        export_onnx(model_folder, path, options, [tmp_path / "photo.png"])
    assert sorted(x.name for x in tmp_path.iterdir()) == ["photo.png"]


def test_what_cannot_be_exported(peers, model_folder, tmp_path):
    path = tmp_path / "model.onnx"
    for options, message in (
        (ExportOptions(opset=18), r"Opset 18 cannot hold the model with deformable convolutions.*19 to"),
        (ExportOptions(opset=17, plain_operators=True), r"Opset 17 cannot hold the model; choose one from 18"),
    ):
        with pytest.raises(ValueError, match=message):
            export_onnx(model_folder, path, options)
    with pytest.raises(ValueError, match=r"Only MaSSFormer can be exported to ONNX, not models of type semask"):
        export_onnx(peers("semask"), path)
    tiny_model().save_pretrained(tmp_path / "other")
    SegformerImageProcessor().save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="image processor of .* is not MaSSFormer's"):
        export_onnx(tmp_path / "other", path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "model.pt"], "must end in .onnx"),
        (["--output", "there.onnx"], "exists. Choose another --output, or replace it with --overwrite"),
        (["--output", "m.onnx", "--dynamic", "--size", "64x64"], "--dynamic accepts photographs of any size"),
        (["--output", "m.onnx", "--size", "64"], "'64' is not a size"),
        (["--output", "m.onnx", "--model", "nowhere/at/all"], "There is no model folder nowhere/at/all"),
        (["--output", "m.onnx", "--photo", "none.jpg"], "There is no image file at none.jpg"),
    ],
)
def test_options_that_cannot_be(model_folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").write_bytes(b"kept")
    assert message in run("export", "--model", model_folder, *options, code=1).output
    assert (tmp_path / "there.onnx").read_bytes() == b"kept"
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"do_resize": True}, "resizes photographs"), ({"size_divisor": 16}, "must pad photographs to multiples of 32")],
)
def test_processors_that_the_graph_does_not_follow(model_folder, settings, message):
    dimensions = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 9, 8])] * 2
    network = onnx.helper.make_model(onnx.helper.make_graph([], "network", dimensions[:1], dimensions))
    with pytest.raises(ValueError, match=message):
        job.photograph_graph(network, MaSSFormerImageProcessor(**settings), None, False)


@pytest.mark.parametrize(
    ("library", "needed_by"), [("onnx", "export"), ("onnxscript", "export"), ("onnxruntime", "segment")]
)
def test_a_missing_library_is_named(model_folder, dynamic, tmp_path, monkeypatch, library, needed_by):
    monkeypatch.setitem(sys.modules, library, None)
    photo(8, 8).save(tmp_path / "a.png")
    command = {"export": ("--model", model_folder), "segment": (tmp_path / "a.png", "--model", dynamic[0])}[needed_by]
    result = run(needed_by, *command, "--output", tmp_path / "out.onnx", code=1)
    assert library in result.output
    assert "pip install 'transformers-massformer[onnx]'" in result.output


def model_of(writer: GraphWriter, inputs, outputs):
    """A part of the graph by itself."""
    helper = onnx.helper
    values = [
        [helper.make_tensor_value_info(name, dtype, [None] * ndim) for name, dtype, ndim in group]
        for group in (inputs, outputs)
    ]
    graph = helper.make_graph(writer.node, "part", *values, writer.initializer)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize("size", [(1, 1), (32, 64), (45, 70)])
def test_the_preparation_is_the_processor_s(size):
    processor = MaSSFormerImageProcessor()
    types = onnx.TensorProto
    session = model_of(
        write_preparation(processor, types.FLOAT), [("image", types.UINT8, 3)], [("pixel_values", types.FLOAT, 4)]
    )
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = processor(images=PIL.Image.fromarray(image), return_tensors="np")["pixel_values"]
    (found,) = session.run(None, {"image": image})
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("num_queries", [1, 4, 9])
def test_the_read_out_is_the_processor_s(num_queries):
    types, rng = onnx.TensorProto, np.random.default_rng(num_queries)
    inputs = [
        ("image", types.UINT8, 3),
        ("class_queries_logits", types.FLOAT, 3),
        ("masks_queries_logits", types.FLOAT, 4),
    ]
    session = model_of(write_read_out(num_queries, 5), inputs, [("label_map", types.UINT8, 2)])
    class_logits = rng.normal(size=(1, num_queries, 6)).astype(np.float32)
    masks = rng.normal(size=(1, num_queries, 32, 48), scale=3).astype(np.float32)
    for height, width in ((64, 96), (37, 66), (33, 65)):
        image = np.zeros((height, width, 3), np.uint8)
        expected, _ = read_semantic_map(
            torch.from_numpy(class_logits[0]), torch.from_numpy(masks[0]), (height, width), (height, width)
        )
        (found,) = session.run(
            None, {"image": image, "class_queries_logits": class_logits, "masks_queries_logits": masks}
        )
        assert np.mean(found == expected.numpy()) > 0.9999


@pytest.mark.parametrize(("side", "stride", "dilation"), [(3, 2, 1), (3, 1, 1), (5, 2, 1), (1, 2, 1), (3, 1, 2)])
def test_fixed_padding_is_timm_s_at_multiples_of_the_stride(side, stride, dilation):
    layers = pytest.importorskip("timm.layers")
    model = nn.Sequential(layers.Conv2dSame(2, 3, side, stride=stride, dilation=dilation))
    hidden_states = torch.randn(1, 2, 8, 12)
    expected = model(hidden_states)
    fix_padding(model)
    assert isinstance(model[0], FixedPaddingConv2d)
    torch.testing.assert_close(model(hidden_states), expected)


def test_a_graph_for_any_size_sees_large_photographs_twice(tmp_path):
    torch.manual_seed(0)
    tiny_model(context_size=96).save_pretrained(tmp_path / "model")
    MaSSFormerImageProcessor().save_pretrained(tmp_path / "model")
    export_onnx(tmp_path / "model", tmp_path / "model.onnx", ExportOptions())
    exported, reference = OnnxPredictor(tmp_path / "model.onnx"), Segmenter(tmp_path / "model", "cpu")
    # The last ones are not larger than the context.
    for size in ((224, 161), (300, 40), (96, 96), (40, 70)):
        picture = photo(*size)
        assert (exported(picture).numpy() == reference(picture).label_map).mean() >= 0.9999
    network, pixel_values = reference.predictor.model, torch.ones(1, 3, 160, 160)
    with torch.no_grad():
        twice = network(pixel_values).logits
        network.config.context_size = None
        assert (network(pixel_values).logits - twice).abs().max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["swin", "timm"])
def test_other_backbones(tmp_path, backbone):
    tiny_model(backbone_config=TINY_SWIN if backbone == "swin" else TINY_TIMM).save_pretrained(tmp_path / "model")
    MaSSFormerImageProcessor().save_pretrained(tmp_path / "model")
    options = ExportOptions(size=(70, 45))
    report = export_onnx(tmp_path / "model", tmp_path / "model.onnx", options)
    assert report["agreement"][0]["argmax_agreement"] >= 0.9999


def test_a_measurement_that_fails_is_reported(tmp_path):
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    took = check.measure(tmp_path / "garbage.onnx", photo(8, 6))
    assert (took["width"], took["height"]) == (8, 6)
    assert "InvalidProtobuf" in took["error"]
