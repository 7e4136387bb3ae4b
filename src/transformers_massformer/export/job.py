"""Export a model's folder to an ONNX file, with a report."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from .. import __version__
from ..images import open_image
from ..inference.loading import class_names, load_model
from ..inference.predictor import ModelPredictor
from ..models.image_processing_massformer import MaSSFormerImageProcessor
from ..scenes import render_scene
from ..utils.files import written_whole
from ..utils.json_files import write_json
from .check import Agreement, agreement, measure
from .libraries import onnx_exporter, onnx_runtime
from .network import export_network
from .photograph import CLASSES, LABEL_MAP, MASKS, photograph_graph
from .runtime import OnnxPredictor


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


def with_metadata(model: Any, labels: list[str], options: ExportOptions) -> Any:
    """Add a description to the model's metadata."""
    onnx = onnx_exporter()
    described = {"labels": labels, "dtype": str(options.dtype).removeprefix("torch."), "version": __version__}
    onnx.helper.set_model_props(model, {"massformer": json.dumps(described)})
    model.producer_name, model.producer_version = "transformers-massformer", __version__
    return model


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
    of_queries = OnnxPredictor(queries)
    label_maps = None if options.queries else OnnxPredictor(written)
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


def export_onnx(
    model: str | Path,
    output: Path,
    options: ExportOptions = ExportOptions(),
    photo_paths: Sequence[Path] = (),
    on_step: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """
    Export a MaSSFormer to ONNX. The graph maps `image`, an upright RGB photograph as uint8 of shape
    `(height, width, 3)`, to `label_map`, uint8 of the same height and width; or with `options.queries` to
    `class_queries_logits`, of shape `(1, num_queries, num_labels + 1)`, and `masks_queries_logits`, of shape
    `(1, num_queries, rows, columns)` at half the padded photograph's size. A JSON report beside it records the
    agreement with the model, and the time and memory of a photograph on the CPU.

    Args:
        model (`str` or `Path`): A folder (or Hub name) with the model and its image processor.
        output (`Path`): The ONNX file. The report has the same name with .json.
        options ([`ExportOptions`], *optional*): Options of the file.
        photo_paths (`Sequence[Path]`, *optional*):
            Photographs for the comparison, resized if the graph is for one size; the first one is also resized for the
            measurement. By default a drawn scene.
        on_step (`Callable`, *optional*): Called with a description before each step.

    Returns:
        `dict`: The report.

    Raises:
        FileNotFoundError: If the model does not exist.
        ImportError: If onnx, onnxscript or ONNX Runtime is not installed, or aggdraw, without photographs.
        ValueError: If the model cannot be exported with these options, or a float32 export disagrees with it; no file
            is written then.
    """
    onnx, runtime = onnx_exporter(), onnx_runtime()
    photos = [(path.name, open_image(path)) for path in photo_paths]
    if options.size is not None:
        photos = [(name, photo.resize(options.size)) for name, photo in photos]
    # Before the export, which takes minutes: drawing needs a package of its own.
    timed = photos[0][1].resize(options.size or SIZE) if photos else drawn_photos([options.size or SIZE])[0][1]
    photos = photos or drawn_photos([options.size] if options.size else SCENE_SIZES)
    on_step("exporting")
    queries, label_maps = build_graphs(model, options)
    with tempfile.TemporaryDirectory(prefix="massformer-export-") as folder, written_whole(output) as partial:
        of_queries = Path(folder) / "queries.onnx"
        onnx.save(queries, of_queries)
        onnx.save(queries if options.queries else label_maps, partial)
        del queries, label_maps
        on_step("comparing with PyTorch")
        found = check_graphs(model, of_queries, partial, options, photos)
        on_step("measuring time and memory")
        del photos
        report = {
            "model": Path(model).name,
            "outputs": [CLASSES, MASKS] if options.queries else [LABEL_MAP],
            **asdict(options),
            "bytes": partial.stat().st_size,
            "agreement": [asdict(each) for each in found],
            "performance": measure(partial, timed),
            "versions": {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": runtime.__version__},
        }
        write_json(report, output.with_suffix(".json"), indent=2)
    return report
