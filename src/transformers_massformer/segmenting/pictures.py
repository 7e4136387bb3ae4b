"""Write the files of a segmented photograph."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import PIL.Image

from ..data.annotations import write_label_map
from ..data.label_images import count_ids
from ..editing import bokeh, cut_out, firm_matte, joined_matte, overlay_image, priors_image, refine_matte, with_legend
from ..inference.mattes import as_array
from ..inference.segmenter import Segmentation
from ..utils.files import file_name
from ..utils.png import write_png
from .jobs import Extras, Job, Loaded


def write_pictures(pictures: Iterable[tuple[str, PIL.Image.Image]], folder: Path):
    """Write a PNG for each name into a folder."""
    for name, picture in pictures:
        write_png(picture, folder / f"{name}.png")


def write_edits(
    photo: PIL.Image.Image,
    label_map: np.ndarray,
    class_mattes: np.ndarray,
    job: Job,
    partials: Mapping[Path, Path],
    labels: list[str],
    extras: Extras,
) -> str:
    """
    Write mattes, cut-outs and bokeh of the classes in the label map.

    Returns:
        `str`: A remark, if the photograph has none of the classes to keep in focus.
    """
    present = np.flatnonzero(count_ids(label_map)[: len(labels)]).tolist()
    mattes = {labels[index]: PIL.Image.fromarray(class_mattes[index]) for index in present}
    if extras.refine:
        mattes = {name: refine_matte(photo, matte) for name, matte in mattes.items()}
    if job.mattes is not None:
        write_pictures(((file_name(name), matte) for name, matte in mattes.items()), partials[job.mattes])
    # Refined mattes are firm already.
    firm = as_array if extras.refine else firm_matte
    if job.cutouts is not None:
        write_pictures(
            ((file_name(name), cut_out(photo, firm(matte))) for name, matte in mattes.items()), partials[job.cutouts]
        )
    if job.bokeh is None:
        return ""
    in_focus = [name for name in extras.bokeh if name in mattes]
    focus = joined_matte([firm(mattes[name]) for name in in_focus], photo.size)
    write_png(bokeh(photo, focus, extras.strength), partials[job.bokeh])
    return "" if in_focus else f"no {' and no '.join(extras.bokeh)} in it, {job.bokeh.name} is blurred everywhere"


def write_files(
    loaded: Loaded,
    found: Segmentation,
    partials: Mapping[Path, Path],
    extras: Extras,
    labels: list[str],
    num_semantic_labels: int,
) -> str:
    """
    Write all files of a job to temporary paths.

    Args:
        loaded ([`Loaded`]): The photograph and its job.
        found ([`Segmentation`]): What the model found.
        partials (`Mapping[Path, Path]`): A temporary path for each of the job's files.
        extras ([`Extras`]): Pictures to write beside the label map.
        labels (`list[str]`): The model's classes.
        num_semantic_labels (`int`): Classes of the backbone's semantic maps.

    Returns:
        `str`: A remark, see [`write_edits`]; or nothing.
    """
    job, photo, label_map = loaded.job, loaded.photo, found.label_map
    write_label_map(label_map, partials[job.label_map], labels, job.photo.name, extras.annotation_format)
    if job.overlay is not None:
        overlay = with_legend(overlay_image(photo, label_map, len(labels)), label_map, labels)
        write_png(overlay, partials[job.overlay])
    if job.priors is not None:
        priors = priors_image(photo, found.semantic_priors or [], num_semantic_labels)
        write_png(priors, partials[job.priors])
    if found.mattes is None:
        return ""
    return write_edits(photo, label_map, found.mattes, job, partials, labels, extras)
