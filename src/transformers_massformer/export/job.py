"""Export a model's folder to an ONNX file or an OpenVINO model, with a report."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from .. import __version__
from ..images import open_image
from ..inference.identity import exported_files
from ..inference.loading import class_names, load_model
from ..inference.predictor import ModelPredictor
from ..models.image_processing_massformer import MaSSFormerImageProcessor
from ..scenes import render_scene
from ..utils.files import written_whole
from ..utils.json_files import write_json
from .check import Agreement, agreement, measure
from .libraries import onnx_exporter, onnx_runtime, openvino_runtime
from .network import export_network
from .openvino_models import convert_to_openvino
from .photograph import CLASSES, LABEL_MAP, MASKS, photograph_graph
from .runtime import ExportedPredictor, is_exported


# A float32 graph that agrees less with the model is not written.
LEAST_AGREEMENT = 0.9999
# Width and height of the photograph for time and memory, and the default size of graphs for one size.
SIZE = (4096, 3072)
# Without photographs the check uses a drawn scene; its seed, and its sizes for a dynamic graph.
SCENE_SEED, SCENE_SIZES = 90, ((767, 509), (1024, 768), (2048, 1536))


# The name of a photograph, and the photograph.
Photo = tuple[str, PIL.Image.Image]


@dataclass(frozen=True)
class ExportOptions:
    """
    Options of an exported file.

    Args:
        opset (`int`, *optional*, defaults to 20): Version of ONNX's operators.
        size (`tuple[int, int]`, *optional*):
            Width and height of the photographs, for a graph of one size. By default the graph takes any size.
        half (`bool`, *optional*, defaults to `False`): Store weights and compute mostly in float16.
        plain_operators (`bool`, *optional*, defaults to `False`):
            Write deformable convolutions with GridSample, for runtimes without DeformConv.
        queries (`bool`, *optional*, defaults to `False`):
            Return the class and mask logits of all queries instead of label maps.
    """

    opset: int = 20
    size: tuple[int, int] | None = None
    half: bool = False
    plain_operators: bool = False
    queries: bool = False

    @property
    def dtype(self) -> torch.dtype:
        return torch.float16 if self.half else torch.float32

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        return None if self.size is None else (self.size[1], self.size[0])


def padded(length: int, divisor: int) -> int:
    return (length + divisor - 1) // divisor * divisor


def describe(labels: list[str], options: ExportOptions) -> dict[str, Any]:
    """Return the description that is kept in an exported model."""
    return {"labels": labels, "dtype": str(options.dtype).removeprefix("torch."), "version": __version__}


def with_metadata(model: Any, labels: list[str], options: ExportOptions) -> Any:
    """Add a description to the model's metadata."""
    onnx = onnx_exporter()
    onnx.helper.set_model_props(model, {"massformer": json.dumps(describe(labels, options))})
    model.producer_name, model.producer_version = "transformers-massformer", __version__
    return model


def save_graph(graph: Any, path: Path):
    """Write a graph as an ONNX file, or by its suffix .xml as an OpenVINO model."""
    if path.suffix.lower() == ".xml":
        convert_to_openvino(graph, path)
    else:
        onnx_exporter().save(graph, path)


def build_graphs(model: str | Path, options: ExportOptions) -> tuple[Any, Any]:
    """
    Build the graphs from a photograph to the logits of all queries, and to its label map.

    Args:
        model (`str` or `Path`): A folder (or Hub name) with a MaSSFormer and its image processor.
        options ([`ExportOptions`]): Options of the file.

    Returns:
        `tuple(onnx.ModelProto)`

    Raises:
        FileNotFoundError: If the model does not exist.
        ImportError: If onnx or onnxscript is not installed.
        ValueError: If the model cannot be exported with these options.
    """
    network_model, processor = load_model(model)
    if not isinstance(processor, MaSSFormerImageProcessor):
        raise ValueError(f"The image processor of {model} is not MaSSFormer's.")
    network_model.to(options.dtype)
    size, divisor = options.height_and_width, processor.size_divisor
    padded_size = None if size is None else (padded(size[0], divisor), padded(size[1], divisor))
    network = export_network(network_model, options.opset, padded_size, options.plain_operators)
    labels = class_names(network_model.config)
    graphs = (photograph_graph(network, processor, size, queries) for queries in (True, False))
    queries, label_maps = (with_metadata(graph, labels, options) for graph in graphs)
    return queries, label_maps


def drawn_photos(sizes: Sequence[tuple[int, int]]) -> list[Photo]:
    """Draw a scene at the given sizes, width and height."""
    scene = PIL.Image.fromarray(render_scene(SCENE_SEED, 0, max(sizes)).image)
    return [("drawn scene", scene.resize(size, PIL.Image.Resampling.BOX)) for size in sizes]


def check_graphs(
    model: str | Path,
    queries: Path,
    written: Path,
    options: ExportOptions,
    photos: Sequence[Photo],
) -> list[Agreement]:
    """
    Compare the graphs with the model in float32.

    Raises:
        ValueError: If a float32 graph agrees with the model on less than 99.99 % of a photograph's pixels.
    """
    reference = ModelPredictor.load(model, "cpu")
    of_queries = ExportedPredictor(queries)
    label_maps = None if options.queries else ExportedPredictor(written)
    found = []
    for name, photo in photos:
        found.append(agreement(name, photo, reference, of_queries, label_maps))
        if not options.half and found[-1].argmax_agreement < LEAST_AGREEMENT:
            raise ValueError(
                f"The exported model and the original agree on only {found[-1].argmax_agreement:.4%} of the pixels of "
                f"{name} ({photo.width} x {photo.height}), less than {LEAST_AGREEMENT:.2%}; nothing was written. "
                "Another --opset may help."
            )
    return found


def export_model(
    model: str | Path,
    output: Path,
    options: ExportOptions = ExportOptions(),
    photo_paths: Sequence[Path] = (),
    on_step: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """
    Export a MaSSFormer to ONNX or OpenVINO. The graph maps `image`, an upright RGB photograph as uint8 of shape
    `(height, width, 3)`, to `label_map`, uint8 of the same height and width; or with `options.queries` to
    `class_queries_logits`, of shape `(1, num_queries, num_labels + 1)`, and `masks_queries_logits`, of shape
    `(1, num_queries, rows, columns)` at half the padded photograph's size. A JSON report beside it records the
    agreement with the model, and the time and memory of a photograph on the CPU.

    Args:
        model (`str` or `Path`): A folder (or Hub name) with the model and its image processor.
        output (`Path`):
            The ONNX file (.onnx), or the OpenVINO model (.xml), whose weights go to the same name with .bin. The
            report has the same name with .json.
        options ([`ExportOptions`], *optional*): Options of the file.
        photo_paths (`Sequence[Path]`, *optional*):
            Photographs for the comparison, resized if the graph is for one size; the first one is also resized for the
            measurement. By default a drawn scene.
        on_step (`Callable`, *optional*): Called with a description before each step.

    Returns:
        `dict`: The report.

    Raises:
        FileNotFoundError: If the model does not exist.
        ImportError: If onnx, onnxscript or the runtime is not installed, or aggdraw, without photographs.
        ValueError: If the model cannot be exported with these options, or a float32 export disagrees with it; no file
            is written then.
    """
    if not is_exported(output):
        raise ValueError(f"{output} must end in .onnx, or .xml for OpenVINO.")
    is_openvino = output.suffix.lower() == ".xml"
    if is_openvino and options.half:
        raise ValueError("OpenVINO models are computed in float32; leave out half precision.")
    onnx, runtime = onnx_exporter(), openvino_runtime() if is_openvino else onnx_runtime()
    photos = [(path.name, open_image(path)) for path in photo_paths]
    if options.size is not None:
        photos = [(name, photo.resize(options.size)) for name, photo in photos]
    # Before the export, which takes minutes: drawing needs a package of its own.
    timed = photos[0][1].resize(options.size or SIZE) if photos else drawn_photos([options.size or SIZE])[0][1]
    photos = photos or drawn_photos([options.size] if options.size else SCENE_SIZES)
    on_step("exporting")
    queries, label_maps = build_graphs(model, options)
    with tempfile.TemporaryDirectory(prefix="massformer-export-") as folder:
        of_queries, written = (Path(folder) / f"{name}{output.suffix.lower()}" for name in ("queries", "written"))
        save_graph(queries, of_queries)
        save_graph(queries if options.queries else label_maps, written)
        del queries, label_maps
        on_step("comparing with PyTorch")
        found = check_graphs(model, of_queries, written, options, photos)
        on_step("measuring time and memory")
        del photos
        report = {
            "model": Path(model).name,
            "outputs": [CLASSES, MASKS] if options.queries else [LABEL_MAP],
            **asdict(options),
            "bytes": sum(file.stat().st_size for file in exported_files(written)),
            "agreement": [asdict(each) for each in found],
            "performance": measure(written, timed),
            "versions": {
                "torch": torch.__version__,
                "onnx": onnx.__version__,
                runtime.__name__: runtime.__version__,
            },
        }
        # The weights first: a model without its weights is an error, weights without a model are not.
        for file in reversed(exported_files(written)):
            with written_whole(output.with_suffix(file.suffix)) as partial:
                shutil.copyfile(file, partial)
        write_json(report, output.with_suffix(".json"), indent=2)
    return report
