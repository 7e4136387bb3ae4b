"""massformer label: add new classes to a data set without drawing masks."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import console, error_console, fail, fail_interrupted, progress_bar
from .options import AllowTruncated, DataFolder, Device, DType, Labels, MaxMegapixels, Precision, choose_splits
from .processes import join_processes, own_device


if TYPE_CHECKING:
    from accelerate import PartialState

    from ..labeling import Labeler
    from ..labeling.job import LabelJob, Photo


class Relabel(StrEnum):
    """Pixels that may change their class."""

    others = "others"
    all = "all"


def parse_classes(texts: list[str]) -> dict[str, str]:
    """Parse "car" or "car=a car seen from the street" to the text to detect, by the name of the class."""
    from ..utils.names import clean_name, find_name
    from ..utils.text import readable_names

    prompts: dict[str, str] = {}
    for text in readable_names(texts, "--class"):
        name, _, prompt = (part.strip() for part in text.partition("="))
        if not name:
            raise ValueError(f"--class {text!r} has no name. Give NAME, or NAME=TEXT to detect another text.")
        if find_name(name, list(prompts)) is not None:
            raise ValueError(f"--class {name} is given twice.")
        prompts[clean_name(name)] = prompt or name
    return prompts


def number_classes(prompts: dict[str, str], known: list[str]) -> dict[int, str]:
    """Return the names of the new classes by id; the ids follow those of the known classes."""
    from ..utils.names import check_names, find_name

    for name in prompts:
        if find_name(name, known) is not None:
            raise ValueError(
                f"The class {name!r} exists already ({', '.join(known)}). Choose another name for --class."
            )
    names = check_names([*known, *prompts], "The classes of the data, and --class")
    return dict(enumerate(names[len(known) :], start=len(known)))


def find_photos(data: Path, splits: list[str], base: Path | None) -> list[Photo]:
    """Return the photographs to label, with the data's label maps or those of an earlier labelling."""
    from ..data.layout import check_faults
    from ..data.pseudo_labels import PseudoLabelFiles
    from ..labeling.job import Photo

    photos = []
    for split, found in choose_splits(data, splits).items():
        check_faults(split, found)
        pairs = found.pairs if base is None else PseudoLabelFiles(base).pairs(found.pairs, split)
        photos += [Photo(split, pair) for pair in pairs]
    return photos


def known_classes(
    data: Path, splits: list[str], labels: list[str] | None, base: Path | None
) -> tuple[list[str], dict[int, str]]:
    """Return the names of the classes in the label maps, and those that an earlier labelling added, by id."""
    from ..data.class_names import data_classes
    from ..data.pseudo_labels import PseudoLabelFiles
    from ..utils.names import check_names, names_in_order

    names = data_classes(data, choose_splits(data, splits), labels).names
    if base is None:
        return names, {}
    added, origin = PseudoLabelFiles(base).read_classes(), f"The classes of {data} and of {base}"
    if clash := [index for index in added if index < len(names)]:
        raise ValueError(
            f"{base} adds the class {clash[0]} {added[clash[0]]}, but {data} has {names[clash[0]]} there. Use the "
            "data that was labelled."
        )
    return check_names(names_in_order({**dict(enumerate(names)), **added}, origin), origin), added


def check_models(detector: str, segmenter: str) -> dict[str, Any]:
    """
    Return the names and contents of the models, which identify them when resuming.

    Raises:
        FileNotFoundError: If a model does not exist.
        ValueError: If a model is not given.
    """
    from ..inference.identity import model_identity

    if not detector or not segmenter:
        raise ValueError("Give the models with --detector and --segmenter, or decisions with --review.")
    named = {"detector": detector, "segmenter": segmenter}
    return {role: model_identity(name) for role, name in named.items()}


def label_all(job: LabelJob, labeler: Labeler, prompts: dict[int, str], state: PartialState):
    """Label this process's share of the photographs that have no record yet; end the command if any failed."""
    from ..inference.memory import out_of_memory
    from ..utils.resuming import RecordWriter

    done = job.done()
    # All processes read before any writes; otherwise their shares would differ.
    state.wait_for_everyone()
    remaining = [photo for photo in job.photos if photo.key not in done]
    if state.is_main_process and done:
        console.print(f"{len(done)} of {len(job.photos)} photographs are in {job.output} already.", markup=False)
    share, failed = remaining[state.process_index :: state.num_processes], 0
    remedy = "A photograph does not fit into memory. Lower --batch-size, or choose a smaller --dtype."
    writing = RecordWriter(job.output, state.process_index)
    with out_of_memory(remedy), writing as writer, progress_bar() as bar:
        task = bar.add_task("labelling", total=len(share), visible=state.is_main_process)
        for photo, outcome in job.label(labeler, prompts, share, writer):
            if isinstance(outcome, Exception):
                failed += 1
                error_console.print(f"failed: {photo.pair.image}: {outcome}", style="red", markup=False)
            bar.update(task, advance=1)
    state.wait_for_everyone()
    state.destroy_process_group()
    if failed:
        fail(f"{failed} photographs failed. Replace or remove them, and run the same command again.")
    if state.is_main_process and len(job.done()) < len(job.photos):
        fail("Photographs of other processes failed; see above.")


def report(job: LabelJob, reviewables: list[Any], seconds: float):
    """Print what was found; end the command if a class was not."""
    from ..labeling.job import REVIEW_LIST, SHEETS_FOLDER

    for class_id, name in job.classes.items():
        found = [each for each in reviewables if each.instance.class_id == class_id]
        accepted = [each for each in found if each.instance.accepted]
        photos = {each.key[:2] for each in accepted}
        console.print(
            f"{name} (class {class_id}): {len(accepted)} objects in {len(photos)} of {len(job.photos)} photographs, "
            f"{len(found) - len(accepted)} rejected",
            markup=False,
        )
    console.print(
        f"{seconds:.1f} s. Wrote label maps and manifest to {job.output}. Look at {job.output / SHEETS_FOLDER}, "
        f"change decisions in {job.output / REVIEW_LIST}, and apply them with --review.",
        markup=False,
    )
    missing = [
        name
        for class_id, name in job.classes.items()
        if not any(each.instance.accepted and each.instance.class_id == class_id for each in reviewables)
    ]
    if missing:
        fail(
            f"No {' and no '.join(missing)} was found in {len(job.photos)} photographs. Lower --score, describe it "
            "in other words (--class NAME=TEXT), or detect in windows (--tile 1024)."
        )


def label(
    data: DataFolder,
    classes: Annotated[
        list[str], typer.Option("--class", help="NAME or NAME=TEXT: a new class and the text to detect. Repeatable.")
    ],
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder for label maps, manifest and review sheets.")],
    detector: Annotated[str, typer.Option(help="Folder or Hub name of a zero-shot detector.")] = "",
    segmenter: Annotated[str, typer.Option(help="Folder or Hub name of a SAM, HQ-SAM or SAM 2 model.")] = "",
    review: Annotated[Path | None, typer.Option(help="Apply the decisions of this review list.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="train, validation or test. Default: train.")] = None,
    labels: Labels = None,
    pseudo_labels: Annotated[
        Path | None, typer.Option("--pseudo-labels", help="Earlier labelling to whose label maps to add the classes.")
    ] = None,
    score: Annotated[float, typer.Option(help="Drop boxes with lower scores.", min=0, max=1)] = 0.3,
    presence_score: Annotated[
        float, typer.Option(help="Treat a class as absent from photographs whose best object scores less.")
    ] = 0.0,
    mask_score: Annotated[float, typer.Option(help="Reject masks with lower scores.")] = 0.0,
    min_area: Annotated[float, typer.Option(help="Smallest object, as a share of the photograph.")] = 0.0,
    max_area: Annotated[float, typer.Option(help="Largest object, as a share of the photograph.")] = 1.0,
    tile: Annotated[int | None, typer.Option(help="Detect also in windows of this many pixels.")] = None,
    overlap: Annotated[int, typer.Option(help="Overlap of the windows in pixels.")] = 256,
    relabel: Annotated[Relabel, typer.Option(help="Pixels that may get a new class.")] = Relabel.others,
    sheets: Annotated[int, typer.Option(help="Number of review sheets, of 20 objects each.", min=0)] = 10,
    batch_size: Annotated[int, typer.Option(help="Photographs or windows per detector call.")] = 1,
    device: Device = None,
    dtype: Precision = DType.float32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard earlier results in the folder.")] = False,
    max_megapixels: MaxMegapixels = None,
    allow_truncated: AllowTruncated = False,
):
    """
    Detect objects of new classes by name, segment them, and add the masks to the label maps of a data set.

    The same command resumes after an interruption. Several processes share the photographs: accelerate launch (or
    torchrun) -m transformers_massformer.cli label ...
    """
    import torch
    from transformers.utils import logging

    from ..images import accept_photos
    from ..inference.loading import default_device
    from ..labeling import Labeler, LabelOptions, SamSegmenter, ZeroShotDetector
    from ..labeling.job import LabelJob
    from ..labeling.review import read_review_list
    from ..utils.extras import require

    require("pycocotools.mask", "coco", "massformer label")
    logging.disable_progress_bar()
    start = time.perf_counter()
    try:
        accept_photos(max_megapixels, allow_truncated)
        prompts = parse_classes(classes)
        known, added = known_classes(data, split or ["train"], labels, pseudo_labels)
        new = number_classes(prompts, known)
        photos = find_photos(data, split or ["train"], pseudo_labels)
        job = LabelJob(output, photos, new, [*known, *prompts], relabel is Relabel.all, added)
        if review is not None:
            info = job.files.read_manifest()["info"]
            job.check_reviewed(info)
            changed = job.review(read_review_list(review))
            console.print(f"{changed} decisions changed.")
        else:
            options = LabelOptions(
                tile=tile,
                overlap=overlap,
                batch_size=batch_size,
                presence_score=presence_score,
                mask_score=mask_score,
                min_area=min_area,
                max_area=max_area,
            )
            models = check_models(detector, segmenter)
            kept = {name: value for name, value in vars(options).items() if name != "batch_size"}
            # The order of the classes gives their ids.
            wanted = {"classes": prompts, "labels": job.labels, "known": known, "relabel": relabel}
            info = {**wanted, **models, "score": score, "options": kept, "dtype": dtype}
            device = device or default_device()
            state = join_processes(device)
            chosen = own_device(state, device) or device
            labeler = Labeler(
                ZeroShotDetector.load(detector, chosen, getattr(torch, dtype), score),
                SamSegmenter.load(segmenter, chosen, getattr(torch, dtype)),
                options,
            )
            if state.is_main_process:
                job.begin(info, overwrite)
            state.wait_for_everyone()
            label_all(job, labeler, dict(zip(new, prompts.values(), strict=True)), state)
            if not state.is_main_process:
                return
        report(job, job.finish(info, sheets), time.perf_counter() - start)
    except (OSError, ValueError, MemoryError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail_interrupted()
