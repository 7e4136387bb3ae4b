"""massformer label: new classes in a data set, without drawing masks."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate import PartialState
from transformers.utils import logging

from ..data.layout import LABELS, check_faults
from ..data.pseudo_labels import PseudoLabelFiles
from ..evaluation.run import model_state
from ..inference.loading import default_device
from ..inference.memory import out_of_memory
from ..labeling import Labeler, LabelOptions, SamSegmenter, ZeroShotDetector
from ..labeling.job import REVIEW_LIST, SHEETS_FOLDER, LabelJob, Photo
from ..labeling.review import read_review_list
from ..utils.resuming import RecordWriter
from .console import console, error_console, fail, progress_bar
from .segment import DType
from .stats import choose_splits


class Relabel(StrEnum):
    others = "others"
    all = "all"


def parse_classes(texts: list[str]) -> dict[str, str]:
    """ "car" or "car=a car seen from the street": names of classes to what is looked for."""
    prompts = {}
    for text in texts:
        name, _, prompt = (part.strip() for part in text.partition("="))
        if not name:
            raise ValueError(f"--class {text!r} has no name. Give NAME, or NAME=TEXT to look for another text.")
        if name in prompts:
            raise ValueError(f"--class {name} is given twice.")
        prompts[name] = prompt or name
    return prompts


def number_classes(prompts: dict[str, str], known: list[str]) -> dict[int, str]:
    """Names of the new classes by id; the ids follow the known ones."""
    for name in prompts:
        if name in known:
            raise ValueError(f"The class {name!r} is known already ({', '.join(known)}). Name another with --class.")
    return dict(enumerate(prompts, start=len(known)))


def find_photos(data: Path, splits: list[str], base: Path | None) -> list[Photo]:
    """What is to be labelled, with the data's label maps or those of earlier labelling."""
    photos = []
    for split, found in choose_splits(data, splits).items():
        check_faults(split, found)
        pairs = found.pairs if base is None else PseudoLabelFiles(base).pairs(found.pairs, split)
        photos += [Photo(split, pair) for pair in pairs]
    return photos


def known_labels(base: Path | None) -> list[str]:
    """Names of the classes that the label maps hold already."""
    added = {} if base is None else PseudoLabelFiles(base).read_classes()
    return [*LABELS, *(added[index] for index in sorted(added))]


def check_models(detector: str, segmenter: str) -> dict[str, Any]:
    """By what the models are known again."""
    if not detector or not segmenter:
        raise ValueError("Name the models with --detector and --segmenter, or give decisions with --review.")
    named = {"detector": detector, "segmenter": segmenter}
    return {role: [name, model_state(name)] for role, name in named.items()}


def label_all(job: LabelJob, labeler: Labeler, prompts: dict[int, str], state: PartialState):
    """Labels what is not in the folder yet, this process its share; ends the command if photographs failed."""
    done = job.done()
    # Nobody writes before everybody has read, or the shares would differ.
    state.wait_for_everyone()
    remaining = [photo for photo in job.photos if photo.key not in done]
    if state.is_main_process and done:
        console.print(f"{len(done)} of {len(job.photos)} are in {job.output} already.", markup=False)
    share, failed = remaining[state.process_index :: state.num_processes], 0
    remedy = "A photograph does not fit into memory. Lower --batch-size, or take a smaller --dtype."
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
        fail(f"{failed} photographs failed. Get them again or remove them, and run the same command again.")
    if state.is_main_process and len(job.done()) < len(job.photos):
        fail("Photographs of other processes failed; see above.")


def report(job: LabelJob, reviewables: list[Any], seconds: float):
    """What was found, for people."""
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
        f"{seconds:.1f} s. Label maps and manifest are in {job.output}; look at {job.output / SHEETS_FOLDER}, change "
        f"decisions in {job.output / REVIEW_LIST}, and give it back with --review.",
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
            "with other words (--class NAME=TEXT), or look in windows (--tile 1024)."
        )


def label(
    data: Annotated[Path, typer.Option(help="Folder of MaSS13K, or of data in its layout.")],
    classes: Annotated[list[str], typer.Option("--class", help="NAME or NAME=TEXT: the new class, what to look for.")],
    output: Annotated[Path, typer.Option(help="Folder for label maps, manifest and review sheets.")],
    detector: Annotated[str, typer.Option(help="Zero-shot detector: a folder or Hub name.")] = "",
    segmenter: Annotated[str, typer.Option(help="SAM, HQ-SAM or SAM 2: a folder or Hub name.")] = "",
    review: Annotated[Path | None, typer.Option(help="A review list with decisions, to be followed.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="train, validation or test; by default train.")] = None,
    pseudo_labels: Annotated[
        Path | None, typer.Option("--pseudo-labels", help="Earlier labelling, to whose label maps this is added.")
    ] = None,
    score: Annotated[float, typer.Option(help="Boxes with lower scores are dropped.", min=0, max=1)] = 0.3,
    presence_score: Annotated[
        float, typer.Option(help="The class is absent from photographs whose best object scores less.")
    ] = 0.0,
    mask_score: Annotated[float, typer.Option(help="Masks with lower scores are rejected.")] = 0.0,
    min_area: Annotated[float, typer.Option(help="Smallest object, as a share of the photograph.")] = 0.0,
    max_area: Annotated[float, typer.Option(help="Largest object, as a share of the photograph.")] = 1.0,
    tile: Annotated[int | None, typer.Option(help="Look also in windows of so many pixels.")] = None,
    overlap: Annotated[int, typer.Option(help="Pixels that windows have in common.")] = 256,
    relabel: Annotated[Relabel, typer.Option(help="Which pixels may get a new class.")] = Relabel.others,
    sheets: Annotated[int, typer.Option(help="Review sheets, of 20 objects each.", min=0)] = 10,
    batch_size: Annotated[int, typer.Option(help="Photographs or windows that the detector gets at once.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the fastest.")] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the weights.")] = DType.float32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew.")] = False,
):
    """
    Finds objects of new classes by their names, makes masks of them, and adds these to the label maps of a data set.
    The same command goes on after an interruption. Several processes share the photographs: accelerate launch (or
    torchrun) -m transformers_massformer.cli label ...
    """
    logging.disable_progress_bar()
    start = time.perf_counter()
    try:
        prompts = parse_classes(classes)
        known = known_labels(pseudo_labels)
        new = number_classes(prompts, known)
        photos = find_photos(data, split or ["train"], pseudo_labels)
        job = LabelJob(output, photos, new, [*known, *prompts], relabel is Relabel.all)
        if review is not None:
            info = job.files.read_manifest()["info"]
            changed = job.review(read_review_list(review))
            console.print(f"{changed} objects decided otherwise.")
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
            labels = {"classes": prompts, "known": known, "relabel": relabel}
            info = {**labels, **models, "score": score, "options": kept, "dtype": dtype}
            device = device or default_device()
            state = PartialState(cpu=device == "cpu")
            chosen = str(state.device) if state.num_processes > 1 else device
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
        fail("interrupted. What is finished is kept; the same command goes on from there.", code=130)
