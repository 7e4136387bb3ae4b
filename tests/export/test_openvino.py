import json
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from support.commands import run
from support.tiny import tiny_model
from support.tiny_data import smooth_photo as photo

from transformers_massformer import MaSSFormerImageProcessor
from transformers_massformer.export import ExportedPredictor, ExportOptions, export_model, job
from transformers_massformer.export.antialias import without_antialiasing
from transformers_massformer.inference.identity import model_identity
from transformers_massformer.inference.predictor import PredictionOptions
from transformers_massformer.inference.segmenter import Segmenter


pytest.importorskip("onnxscript")
openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A model that sees large photographs twice, with offsets that reach across bands."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = tiny_model(context_size=96, detail_residual=True)
    for name, parameter in model.named_parameters():
        if "offset" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    MaSSFormerImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(model_folder, tmp_path_factory):
    """A model for any size, written by the command, and what it printed."""
    path = tmp_path_factory.mktemp("openvino") / "model.xml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "SIZE", (160, 96))
        patch.setattr(job, "SCENE_SIZES", ((70, 45), (128, 96)))
        arguments = ("--model", model_folder, "--output", path, "--dynamic", "--format", "openvino")
        return path, run("export", *arguments).output


def test_the_report_beside_the_files(exported):
    path, printed = exported
    report = json.loads(path.with_suffix(".json").read_text())
    assert report["outputs"] == ["label_map"]
    assert all(each["argmax_agreement"] >= 0.9999 for each in report["agreement"])
    assert report["performance"]["peak_bytes"] > 10 * 2**20
    assert report["bytes"] == path.stat().st_size + path.with_suffix(".bin").stat().st_size
    assert report["versions"]["openvino"] == openvino.__version__
    assert "same label at 100.0000% of the pixels" in printed
    assert sorted(x.suffix for x in path.parent.iterdir()) == [".bin", ".json", ".xml"]


def test_one_model_agrees_with_torch_at_any_size(model_folder, exported):
    predictor, reference = ExportedPredictor(exported[0]), Segmenter(model_folder, "cpu")
    for size in ((1, 1), (33, 31), (200, 64), (224, 161), (40, 300)):
        picture = photo(*size)
        assert (predictor(picture).numpy() == reference(picture).label_map).mean() >= 0.9999


def test_a_size_is_compiled_once(exported):
    predictor = ExportedPredictor(exported[0], options=PredictionOptions(tile=64))
    first = predictor(photo(150, 90))
    compiled = predictor.runtime.compiled
    assert torch.equal(predictor(photo(150, 90)), first)
    assert predictor.runtime.compiled is compiled


def test_photographs_are_segmented_by_the_command(model_folder, exported, tmp_path):
    photo(70, 45).save(tmp_path / "a.png")
    command = ("segment", tmp_path / "a.png", "--model", exported[0], "--output", tmp_path / "out")
    run(*command, "--dtype", "float32")
    found = np.asarray(PIL.Image.open(tmp_path / "out" / "a.png"))
    assert (found == Segmenter(model_folder, "cpu")(photo(70, 45)).label_map).mean() >= 0.9999
    assert "gives label maps without scores" in run(*command, "--mattes", code=1).output
    assert "leave out flip" in run(*command, "--flip", code=1).output
    assert "OpenVINO does not compute on cuda here" in run(*command, "--device", "cuda", code=1).output


def test_scores_of_all_queries(model_folder, tmp_path):
    path, picture = tmp_path / "queries.xml", photo(70, 45)
    picture.save(tmp_path / "a.png")
    export_model(model_folder, path, ExportOptions(size=(70, 45), queries=True), [tmp_path / "a.png"])
    found = Segmenter(ExportedPredictor(path, runtime_options={"INFERENCE_NUM_THREADS": "1"}), mattes=True)(picture)
    expected = Segmenter(model_folder, "cpu", mattes=True)(picture)
    assert np.abs(found.mattes.astype(int) - expected.mattes).max() <= 1
    with pytest.raises(ValueError, match="takes photographs of 70 x 45 pixels, not of 71 x 45"):
        ExportedPredictor(path)(photo(71, 45))


def test_the_weights_belong_to_the_model(exported, tmp_path):
    path = tmp_path / "model.xml"
    path.write_bytes(exported[0].read_bytes())
    for found in (lambda: ExportedPredictor(path), lambda: model_identity(path)):
        with pytest.raises(FileNotFoundError, match=r"There is no file .*model.bin"):
            found()
    path.with_suffix(".bin").write_bytes(exported[0].with_suffix(".bin").read_bytes())
    before = model_identity(path)
    assert before == model_identity(exported[0])
    path.with_suffix(".bin").write_bytes(b"0" + exported[0].with_suffix(".bin").read_bytes()[1:])
    assert model_identity(path) != before


def test_files_of_other_programs(tmp_path):
    path = tmp_path / "model.xml"
    path.with_suffix(".bin").write_bytes(b"")
    path.write_text("<html/>")
    with pytest.raises(ValueError, match="is not a model that OpenVINO can read"):
        ExportedPredictor(path)
    value = openvino.opset8.parameter([1], np.float32)
    openvino.save_model(openvino.Model([openvino.opset8.abs(value)], [value]), path)
    with pytest.raises(ValueError, match="was not written by `massformer export`"):
        ExportedPredictor(path)
    with pytest.raises(ValueError, match=r"model.pt is no exported model; their names end in .onnx or .xml"):
        ExportedPredictor(tmp_path / "model.pt")


@pytest.mark.parametrize(("size", "reduced"), [((60, 90), (16, 24)), ((64, 33), (32, 33)), ((40, 30), (64, 64))])
def test_reductions_are_antialiased_as_in_torch(size, reduced):
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear", antialias=1)
    sizes = onnx.numpy_helper.from_array(np.array([1, 3, *reduced]), "sizes")
    values = [helper.make_tensor_value_info(name, types.FLOAT, [1, 3, None, None]) for name in "xy"]
    graph = helper.make_graph([node], "resize", values[:1], values[1:], [sizes])
    model = without_antialiasing(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    core, noise = openvino.Core(), torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    compiled = core.compile_model(
        core.read_model(model.SerializeToString(), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    expected = torch.nn.functional.interpolate(noise, reduced, mode="bilinear", align_corners=False, antialias=True)
    np.testing.assert_allclose(compiled(noise.numpy())[0], expected.numpy(), atol=1e-5)


def test_positions_are_not_rounded(exported):
    with pytest.raises(ValueError, match="is computed in float32, not in bfloat16"):
        ExportedPredictor(exported[0], dtype=torch.bfloat16)
    predictor = ExportedPredictor(exported[0], runtime_options={"INFERENCE_PRECISION_HINT": "bf16"})
    assert predictor.runtime.options["INFERENCE_PRECISION_HINT"] == "f32"


def test_a_missing_library_is_named(model_folder, exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    photo(8, 8).save(tmp_path / "a.png")
    command = ("segment", tmp_path / "a.png", "--model", exported[0], "--output", tmp_path / "out")
    assert "pip install 'transformers-massformer[openvino]'" in run(*command, code=1).output
