"""Check what is asked for against the model's classes, before any photograph is segmented."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.formats import AnnotationFormat


if TYPE_CHECKING:
    from ..utils.resuming import Results
    from .jobs import Extras, Job


def check_extras(extras: Extras, labels: list[str]):
    """
    Check the pictures and the format asked for before any photograph is segmented.

    Raises:
        MissingExtraError: If their library is not installed.
        ValueError: If the model lacks a class to keep in focus, or two classes would share a file.
    """
    from ..editing.lens_blur import check_strength
    from ..editing.matting import matting_library
    from ..utils.extras import require
    from ..utils.names import file_names

    if extras.annotation_format is AnnotationFormat.coco_rle:
        require("pycocotools.mask", "coco", "--format coco-rle")
    check_strength(extras.strength)
    if extras.mattes or extras.cutouts:
        file_names(labels, "The model's classes")
    unknown = [name for name in extras.bokeh if name not in labels]
    if unknown:
        raise ValueError(f"--bokeh {', '.join(unknown)}: the model has no such class, only {', '.join(labels)}.")
    if extras.edits_colours:
        matting_library()


def record_class_names(output: Path, labels: list[str], results: Results, jobs: Iterable[Job]) -> str:
    """
    Write the names of the classes beside the label maps.

    Args:
        output (`Path`): The folder for results.
        labels (`list[str]`): The model's classes.
        results ([`Results`]): Its records.
        jobs (`Iterable[Job]`): What is about to be made.

    Returns:
        `str`: A remark, if a file there prevents it.

    Raises:
        ValueError: If the folder keeps label maps of other classes.
    """
    from ..data.class_names import CLASSES_FILE, read_class_names, write_class_names
    from ..data.layout import LABEL_SUFFIXES
    from ..utils.names import list_names, same_names

    present = read_class_names(output)
    if present is not None and not same_names(present, labels):
        made = {job.label_map.resolve() for job in jobs}
        for path in sorted(output.rglob("*")):
            record = results.read(path) if path.suffix in LABEL_SUFFIXES and path.resolve() not in made else None
            # Pictures beside label maps have no format.
            if record is not None and "format" in record["made_from"].get("settings", {}):
                raise ValueError(
                    f"{output} keeps label maps of other classes, such as {path}: {list_names(present)}; the model's "
                    f"are {list_names(labels)}. Choose another --output, or remove them."
                )
    try:
        write_class_names(output, labels)
    except ValueError as error:
        return f"{CLASSES_FILE} was not written. {error}"
    return ""
