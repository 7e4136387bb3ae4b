"""massformer evaluate: scores of a model, or of label maps from elsewhere, on a split."""

import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate import PartialState
from rich.progress import TextColumn
from transformers.utils import logging

from ..data.label_map_folder import LabelMapFolder
from ..data.mass13k import LABELS, Pair, check_faults
from ..evaluation.label_spaces import class_lookup, read_label_map_file
from ..evaluation.panels import error_panel
from ..evaluation.profiling import backbone_name, cost_cells, cost_note, profile
from ..evaluation.records import ImageRecord, begin, read_image_records
from ..evaluation.report import (
    SCORES,
    format_score,
    markdown_table,
    results,
    score_rows,
    worst_images,
    write_json,
    write_report,
)
from ..evaluation.run import Evaluator, describe, pair_state
from ..inference.loading import default_device
from ..inference.predictor import ModelPredictor, PredictionOptions, Predictor
from ..metrics import Counts, CountSettings, class_scores
from ..utils.files import written_whole
from ..utils.resuming import RecordWriter
from .console import console, fail, print_table, progress_bar
from .prediction import (
    Flip,
    Inference,
    NativeInput,
    Overlap,
    PeerPostprocess,
    Scales,
    Tile,
    load_predictor,
    read_prediction_options,
)
from .scenes import parse_size
from .segment import DType
from .stats import choose_splits


def is_prediction_folder(model: str) -> bool:
    """Whether it holds label maps, not a model."""
    path = Path(model)
    return path.is_dir() and not (path / "config.json").exists()


def running_scores(total: Counts | None) -> str:
    """The scores of what has been counted so far."""
    if total is None:
        return ""
    scores = class_scores(total)
    return "  ".join(
        f"{title} {format_score(name, getattr(scores, name).nanmean().item())}" for name, title in SCORES.items()
    )


def count_all(evaluator: Evaluator, pairs: list[Pair], output: Path, state: PartialState) -> list[ImageRecord]:
    """Counts what is not in the folder yet, this process its share, and returns all records in order."""
    states = {pair.image_id: pair_state(pair, evaluator.predictor) for pair in pairs}
    done = read_image_records(output, states)
    # Nobody writes before everybody has read, or the shares would differ.
    state.wait_for_everyone()
    remaining = [pair for pair in pairs if pair.image_id not in done]
    if state.is_main_process and done:
        console.print(f"{len(done)} of {len(pairs)} are in {output} already.", markup=False)
    share = remaining[state.process_index :: state.num_processes]
    total = Counts.stack([record.counts for record in done.values()]).sum() if done else None
    with RecordWriter(output, state.process_index) as writer, progress_bar(TextColumn("{task.fields[scores]}")) as bar:
        task = bar.add_task("evaluating", total=len(share), scores=running_scores(total))
        bar.update(task, visible=state.is_main_process)
        for record in evaluator.records(share):
            writer.write(record.to_json())
            total = record.counts if total is None else Counts.stack([total, record.counts]).sum()
            bar.update(task, advance=1, scores=running_scores(total))
    state.wait_for_everyone()
    state.destroy_process_group()
    records = read_image_records(output, states)
    return [records[pair.image_id] for pair in pairs]


def write_panels(evaluator: Evaluator, pairs: list[Pair], records: list[ImageRecord], count: int, output: Path):
    """Pictures of the images with the worst boundaries; those of an earlier run go."""
    folder = output / "worst"
    for old in folder.glob("*.jpg"):
        old.unlink()
    by_id = {pair.image_id: pair for pair in pairs}
    for rank, image_id in enumerate(worst_images(records, count), start=1):
        _, image, label, prediction = evaluator(by_id[image_id])
        image = image or evaluator.read_photo(by_id[image_id])
        panel = error_panel(image, label, prediction, evaluator.num_labels, evaluator.settings.ignore_index)
        with written_whole(folder / f"{rank:02d}_{image_id}.jpg") as partial:
            panel.save(partial, format="JPEG", quality=90)


def write_profile(predictor: ModelPredictor, title: str, size: tuple[int, int], scores: dict[str, Any], output: Path):
    """The model's row in the form of the paper's Table 2."""
    costs = profile(predictor, *size)
    write_json(costs, output / "profile.json")
    header = ["Method", "Backbone", *SCORES.values(), "Param", "FLOPs", "Time", "Memory"]
    cells = [format_score(name, scores[f"mean_{name}"]) if scores else "-" for name in SCORES]
    table = markdown_table([header, [title, backbone_name(predictor.model), *cells, *cost_cells(costs)]])
    with written_whole(output / "profile.md") as partial:
        partial.write_text(f"{table}\n{cost_note(costs)}\n")
    console.print(table + "\n" + cost_note(costs), markup=False)


def make_predictor(
    model: str, device: torch.device, dtype: torch.dtype, options: PredictionOptions
) -> Predictor | LabelMapFolder:
    """Load what `--model` names: a model, or a folder of label maps."""
    if not is_prediction_folder(model):
        return load_predictor(model, device, dtype, options)
    if options.changed():
        given = ", ".join(f"--{name.replace('_', '-')}" for name in options.changed())
        raise ValueError(f"{model} holds label maps, not a model; leave out {given}.")
    return LabelMapFolder(model)


def lookup_of(
    predictor: Predictor | LabelMapFolder, labels: list[str], mapping: dict[str, Any] | None
) -> torch.Tensor:
    """Return the data's class for each of the predictor's."""
    if isinstance(predictor, Predictor):
        return class_lookup(dict(enumerate(predictor.labels)), labels, mapping)
    if mapping is None:
        return torch.arange(len(labels))
    # Label maps have 8 bits, and none holds all of their values.
    return class_lookup({index: str(index) for index in range(256)}, labels, mapping, allow_missing=True)


def evaluate(
    model: Annotated[str, typer.Option(help="A model's folder or Hub name, or a folder of label maps.")],
    data: Annotated[Path | None, typer.Option(help="Folder of MaSS13K, or of data in its layout.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("evaluation"),
    add_class: Annotated[
        list[str] | None, typer.Option(help="A class that the data has beside MaSS13K's; ids follow in this order.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="What tables call the model; by default its folder.")] = None,
    label_map: Annotated[Path | None, typer.Option(help="JSON: the model's classes to the data's.")] = None,
    tile: Tile = None,
    overlap: Overlap = None,
    scales: Scales = "1",
    flip: Flip = False,
    native_input: NativeInput = False,
    peer_postprocess: PeerPostprocess = False,
    inference: Inference = "semantic",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the fastest.")] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the weights.")] = DType.float32,
    boundary_ratio: Annotated[float, typer.Option(help="Width of BIoU's band, per diagonal.")] = 0.001,
    bf1_tolerance: Annotated[float, typer.Option(help="Pixels within which boundaries match.")] = 2.0,
    release_compatible: Annotated[
        bool, typer.Option("--release-compatible", help="Keep ignored pixels in predicted bands, as the release.")
    ] = False,
    worst: Annotated[int, typer.Option(help="Draw so many of the worst images.", min=0)] = 5,
    profile_size: Annotated[
        str, typer.Option(help="Photograph for time, memory and operations, WIDTHxHEIGHT; 0 for none.")
    ] = "4096x3072",
    profile_only: Annotated[bool, typer.Option("--profile-only", help="Measure costs only; no data.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew.")] = False,
):
    """
    Scores a segmentation model of transformers, or label maps, at the photographs' own size. Several processes share
    the images: accelerate launch (or torchrun) -m transformers_massformer.cli evaluate ...
    """
    logging.disable_progress_bar()
    try:
        size = None if profile_size == "0" else parse_size(profile_size)
        options = read_prediction_options(tile, overlap, scales, flip, native_input, peer_postprocess, inference)
        device = device or default_device()
        state = PartialState(cpu=device == "cpu")
        chosen = torch.device(str(state.device) if state.num_processes > 1 else device)
        predictor = make_predictor(model, chosen, getattr(torch, dtype), options)
        title = title or Path(model).name
        if profile_only:
            if not isinstance(predictor, ModelPredictor) or size is None:
                raise ValueError("--profile-only takes a model in PyTorch, and the size of a photograph.")
            output.mkdir(parents=True, exist_ok=True)
            write_profile(predictor, title, size, {}, output)
            return
        if data is None:
            raise ValueError("Name the data with --data, or measure costs alone with --profile-only.")
        mapping = None if label_map is None else read_label_map_file(label_map)
        settings = CountSettings(
            boundary_ratio=boundary_ratio, bf1_tolerance=bf1_tolerance, release_compatible=release_compatible
        )
        labels = [*LABELS, *(add_class or ())]
        evaluator = Evaluator(predictor, lookup_of(predictor, labels, mapping), len(labels), settings)
        ((name, found),) = choose_splits(data, [split]).items()
        check_faults(name, found)
        identity = describe(model, name, labels, settings, mapping, predictor)
        if state.is_main_process:
            begin(output, identity, overwrite)
        state.wait_for_everyone()
        start = time.perf_counter()
        records = count_all(evaluator, found.pairs, output, state)
        if not state.is_main_process:
            return
        result = results(identity, records)
        write_report(title, result, records, output)
        write_panels(evaluator, found.pairs, records, worst, output)
        print_table(score_rows(labels, result["scores"]))
        console.print(f"{len(records)} images, {time.perf_counter() - start:.1f} s. Written to {output}", markup=False)
        if size is not None and isinstance(predictor, ModelPredictor):
            write_profile(predictor, title, size, result["scores"], output)
    except (OSError, ValueError, MemoryError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("interrupted. What is finished is kept; the same command goes on from there.", code=130)
