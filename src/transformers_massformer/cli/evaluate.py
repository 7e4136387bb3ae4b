"""massformer evaluate: score a model, or existing label maps, on a split."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import console, fail, fail_interrupted, print_table, progress_bar
from .contradictions import was_given
from .options import (
    AddClass,
    AllowTruncated,
    Device,
    DType,
    Flip,
    Inference,
    Labels,
    MaskValues,
    MaxMegapixels,
    NativeInput,
    Overlap,
    PeerPostprocess,
    Precision,
    Scales,
    Tile,
    choose_splits,
    load_predictor,
    model_option,
    option_names,
    parse_size,
    read_prediction_options,
)
from .processes import join_processes, own_device


if TYPE_CHECKING:
    import torch
    from accelerate import PartialState

    from ..data.label_map_folder import LabelMapFolder
    from ..data.layout import Pair
    from ..evaluation.records import ImageRecord
    from ..evaluation.run import Evaluator
    from ..inference.predictor import ModelPredictor, PredictionOptions, Predictor
    from ..metrics import Counts


def is_prediction_folder(model: str) -> bool:
    """Check whether `--model` is a folder of label maps."""
    path = Path(model)
    return path.is_dir() and not any((path / name).exists() for name in ("config.json", "adapter_config.json"))


def running_scores(total: Counts | None) -> str:
    """Format the scores of the images counted so far."""
    from ..metrics import class_scores
    from ..metrics.tables import SCORES, format_score

    if total is None:
        return ""
    scores = class_scores(total)
    return "  ".join(
        f"{title} {format_score(name, getattr(scores, name).nanmean().item())}" for name, title in SCORES.items()
    )


def count_all(evaluator: Evaluator, pairs: list[Pair], output: Path, state: PartialState) -> list[ImageRecord]:
    """Count this process's share of the images that have no record yet, and return all records in order."""
    from rich.progress import TextColumn

    from ..evaluation.records import read_image_records
    from ..evaluation.run import pair_files
    from ..metrics import Counts
    from ..utils.resuming import RecordWriter

    files = {pair.image_id: pair_files(pair, evaluator.predictor) for pair in pairs}
    done, changed = read_image_records(output, files)
    # All processes read before any writes; otherwise their shares would differ.
    state.wait_for_everyone()
    remaining = [pair for pair in pairs if pair.image_id not in done]
    if state.is_main_process and done:
        console.print(f"{len(done)} of {len(pairs)} images are in {output} already.", markup=False)
    if state.is_main_process and changed:
        console.print(f"{changed} images again: their files have changed.", markup=False)
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
    records, _ = read_image_records(output, files)
    changed = [pair.image_id for pair in pairs if pair.image_id not in records]
    if changed:
        raise ValueError(
            f"Files of {', '.join(changed[:3])} changed during the evaluation. Run the same command again."
        )
    return [records[pair.image_id] for pair in pairs]


def write_panels(evaluator: Evaluator, pairs: list[Pair], records: list[ImageRecord], count: int, output: Path):
    """Draw the images with the worst boundaries, and remove the pictures of an earlier run."""
    from ..evaluation.panels import error_panel
    from ..evaluation.report import worst_images
    from ..utils.files import written_whole

    folder = output / "worst"
    for old in folder.glob("*.jpg"):
        old.unlink(missing_ok=True)
    by_id = {pair.image_id: pair for pair in pairs}
    for rank, image_id in enumerate(worst_images(records, count), start=1):
        _, image, label, prediction = evaluator(by_id[image_id])
        image = image or evaluator.read_photo(by_id[image_id])
        panel = error_panel(image, label, prediction, evaluator.num_labels, evaluator.settings.ignore_index)
        with written_whole(folder / f"{rank:02d}_{image_id}.jpg") as partial:
            panel.save(partial, format="JPEG", quality=90)


def write_profile(predictor: ModelPredictor, title: str, size: tuple[int, int], scores: dict[str, Any], output: Path):
    """Write the model's row of a table like the paper's Table 2."""
    from ..evaluation.profiling import backbone_name, cost_cells, cost_note, profile
    from ..metrics.tables import SCORES, format_score
    from ..utils.files import written_whole
    from ..utils.json_files import write_json
    from ..utils.text import markdown_table

    costs = profile(predictor, *size)
    write_json(costs, output / "profile.json")
    header = ["Method", "Backbone", *SCORES.values(), "Param", "FLOPs", "Time", "Memory"]
    cells = [format_score(name, scores[f"mean_{name}"]) if scores else "-" for name in SCORES]
    table = markdown_table([header, [title, backbone_name(predictor.model), *cells, *cost_cells(costs)]])
    with written_whole(output / "profile.md") as partial:
        partial.write_text(f"{table}\n{cost_note(costs)}\n", encoding="utf-8", errors="backslashreplace")
    console.print(table + "\n" + cost_note(costs), markup=False)


def make_predictor(
    model: str, device: str | None, dtype: torch.dtype, options: PredictionOptions
) -> Predictor | LabelMapFolder:
    """Load what `--model` names: a model, or a folder of label maps, to which only `--inference` applies."""
    import torch

    from ..data.label_map_folder import LabelMapFolder

    if not is_prediction_folder(model):
        return load_predictor(model, device, dtype, options)
    given = [name for name in options.changed() if name != "inference"]
    given += ["dtype"] * (dtype != torch.float32 or was_given("dtype"))
    if given:
        raise ValueError(f"{model} holds label maps, not a model; leave out {option_names(given)}.")
    return LabelMapFolder(model, allows_unlabelled=options.inference == "general")


def lookup_of(
    predictor: Predictor | LabelMapFolder, labels: list[str], mapping: dict[str, Any] | None
) -> torch.Tensor:
    """Return the data's class for each of the predictor's."""
    import torch

    from ..evaluation.label_spaces import class_lookup
    from ..inference.predictor import Predictor

    if isinstance(predictor, Predictor):
        return class_lookup(predictor.labels, labels, mapping)
    if (names := predictor.class_names()) is not None:
        return class_lookup(names, labels, mapping)
    if mapping is None:
        return torch.arange(len(labels))
    # Label maps have 8 bits, and none contains all 256 values.
    return class_lookup([str(index) for index in range(256)], labels, mapping, allow_missing=True)


def evaluate(
    model: Annotated[
        str, model_option("Model (folder, Hub name, massformer-photo, ONNX file), or folder of label maps.")
    ],
    data: Annotated[Path | None, typer.Option(help="Folder of MaSS13K, or of data in its layout.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder for the results.")] = Path("evaluation"),
    labels: Labels = None,
    mask_values: MaskValues = None,
    add_class: AddClass = None,
    title: Annotated[str | None, typer.Option(help="Name of the model in tables. Default: its folder's.")] = None,
    label_map: Annotated[
        Path | None, typer.Option(help="JSON file that maps the model's classes to the data's.")
    ] = None,
    tile: Tile = None,
    overlap: Overlap = None,
    scales: Scales = "1",
    flip: Flip = False,
    native_input: NativeInput = False,
    peer_postprocess: PeerPostprocess = False,
    inference: Inference = "semantic",
    device: Device = None,
    dtype: Precision = DType.float32,
    boundary_ratio: Annotated[float, typer.Option(help="Width of BIoU's band, as a share of the diagonal.")] = 0.001,
    bf1_tolerance: Annotated[float, typer.Option(help="Distance in pixels within which boundaries match.")] = 2.0,
    release_compatible: Annotated[
        bool, typer.Option("--release-compatible", help="Keep ignored pixels in predicted bands, as the release does.")
    ] = False,
    worst: Annotated[int, typer.Option(help="Number of worst images to draw.", min=0)] = 5,
    profile_size: Annotated[
        str,
        typer.Option(help="Size at which to measure time, memory and operations, WIDTHxHEIGHT; 0: do not measure."),
    ] = "4096x3072",
    profile_only: Annotated[bool, typer.Option("--profile-only", help="Measure costs only, without data.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard earlier results in the folder.")] = False,
    max_megapixels: MaxMegapixels = None,
    allow_truncated: AllowTruncated = False,
):
    """
    Score a segmentation model of transformers, or label maps, at the photographs' own size.

    Several processes share the images: accelerate launch (or torchrun) -m transformers_massformer.cli evaluate ...
    """
    import torch
    from transformers.utils import logging

    from ..data.class_names import data_classes
    from ..data.layout import check_faults
    from ..data.mask_values import parse_mask_values, with_mask_values
    from ..data.presence import check_convention, find_presence, label_sources
    from ..evaluation.label_spaces import read_label_map_file
    from ..evaluation.records import begin
    from ..evaluation.report import results, write_report
    from ..evaluation.run import Evaluator, describe
    from ..images import accept_photos
    from ..inference.predictor import ModelPredictor
    from ..metrics import CountSettings
    from ..metrics.tables import score_rows

    logging.disable_progress_bar()
    try:
        accept_photos(max_megapixels, allow_truncated)
        size = None if profile_size == "0" else parse_size(profile_size)
        options = read_prediction_options(tile, overlap, scales, flip, native_input, peer_postprocess, inference)
        state = join_processes(device)
        predictor = make_predictor(model, own_device(state, device), getattr(torch, dtype), options)
        if size is not None and was_given("profile_size") and not isinstance(predictor, ModelPredictor):
            raise ValueError(f"--profile-size measures models in PyTorch, which {model} is not; leave it out.")
        title = title or Path(model).name
        if profile_only:
            if not isinstance(predictor, ModelPredictor) or size is None:
                raise ValueError("--profile-only needs a model in PyTorch and a --profile-size.")
            output.mkdir(parents=True, exist_ok=True)
            write_profile(predictor, title, size, {}, output)
            return
        if data is None:
            raise ValueError("Give the data with --data, or measure costs only with --profile-only.")
        mapping = None if label_map is None else read_label_map_file(label_map)
        settings = CountSettings(
            boundary_ratio=boundary_ratio, bf1_tolerance=bf1_tolerance, release_compatible=release_compatible
        )
        ((name, found),) = choose_splits(data, [split]).items()
        check_faults(name, found)
        names = data_classes(data, {name: found}, labels, add_class or ()).names
        found = with_mask_values({name: found}, mask_values, names)[name]
        check_convention(find_presence(label_sources(found.pairs), len(names), 1), names, f"split {name} in {data}")
        evaluator = Evaluator(predictor, lookup_of(predictor, names, mapping), len(names), settings)
        mapped = parse_mask_values(mask_values, names)
        identity = describe(model, name, names, settings, mapping, predictor, mapped)
        if state.is_main_process:
            begin(output, identity, overwrite)
        state.wait_for_everyone()
        start = time.perf_counter()
        records = count_all(evaluator, found.pairs, output, state)
        if not state.is_main_process:
            return
        result = results(model, identity, records)
        write_report(title, result, records, output)
        write_panels(evaluator, found.pairs, records, worst, output)
        print_table(score_rows(names, result["scores"]))
        console.print(f"{len(records)} images, {time.perf_counter() - start:.1f} s. Written to {output}", markup=False)
        if size is not None and isinstance(predictor, ModelPredictor):
            write_profile(predictor, title, size, result["scores"], output)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail_interrupted()
