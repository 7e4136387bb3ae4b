"""Plan and write the files of segmented photographs: label maps, overlays, mattes, cut-outs and blurred pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.formats import AnnotationFormat
from .console import error_console
from .options import choose_photos


if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

    from ..inference.segmenter import Segmenter
    from ..utils.resuming import Origin, Results, Standing


@dataclass(frozen=True)
class Job:
    """A photograph and the files to write for it."""

    photo: Path
    label_map: Path
    overlay: Path | None = None
    priors: Path | None = None
    bokeh: Path | None = None
    # Folders with a picture of each class in the photograph.
    mattes: Path | None = None
    cutouts: Path | None = None

    @property
    def outputs(self) -> list[Path]:
        """Return all files and folders to write."""
        found = (self.label_map, self.overlay, self.priors, self.bokeh, self.mattes, self.cutouts)
        return [path for path in found if path is not None]

    @property
    def folders(self) -> list[Path]:
        """Return those of the outputs that are folders."""
        return [path for path in (self.mattes, self.cutouts) if path is not None]


@dataclass(frozen=True)
class Extras:
    """
    Pictures to write beside label maps.

    Args:
        overlay (`bool`): Class colours over the photograph, with a legend.
        priors (`bool`): Semantic maps of a SeMask backbone.
        mattes (`bool`): A matte of each class.
        cutouts (`bool`): A cut-out of each class, transparent elsewhere.
        bokeh (`tuple[str, ...]`): Classes that stay in focus.
        strength (`float`): See [`bokeh`].
        refine (`bool`): Whether the edges of mattes follow the photograph's colours.
        annotation_format ([`AnnotationFormat`]): Format of the label map.
    """

    overlay: bool = False
    priors: bool = False
    mattes: bool = False
    cutouts: bool = False
    bokeh: tuple[str, ...] = ()
    strength: float = 0.01
    refine: bool = False
    annotation_format: AnnotationFormat = AnnotationFormat.png

    @property
    def need_mattes(self) -> bool:
        """Return whether the segmenter has to compute mattes."""
        return self.mattes or self.cutouts or bool(self.bokeh)

    def job(self, photo: Path, label_map: Path) -> Job:
        """Return the job of a photograph, whose files are named after its label map."""

        def beside(name: str, wanted: object, suffix: str = ".png") -> Path | None:
            return label_map.with_name(f"{label_map.stem}_{name}{suffix}") if wanted else None

        return Job(
            photo,
            label_map,
            overlay=beside("overlay", self.overlay),
            priors=beside("semantic_priors", self.priors),
            bokeh=beside("bokeh", self.bokeh),
            mattes=beside("mattes", self.mattes, ""),
            cutouts=beside("cutouts", self.cutouts, ""),
        )

    def origins(self, job: Job, prediction: Mapping[str, Any]) -> dict[Path, Origin]:
        """
        Return what each output of a job is made from.

        Args:
            job ([`Job`]): The photograph and its files.
            prediction (`Mapping[str, Any]`): Settings of the prediction, see [`prediction_settings`].
        """
        from ..utils.fingerprint import Origin

        edited = {"refine_mattes": self.refine}
        own: dict[Path | None, dict[str, Any]] = {
            # Label maps in COCO format contain the photograph's name.
            job.label_map: {"format": self.annotation_format}
            | ({"name": job.photo.name} if job.label_map.suffix == ".json" else {}),
            job.mattes: edited,
            job.cutouts: edited,
            job.bokeh: {**edited, "bokeh": sorted(self.bokeh), "bokeh_strength": self.strength},
        }
        return {path: Origin({"photo": job.photo}, {**prediction, **own.get(path, {})}) for path in job.outputs}


def check_extras(extras: Extras, labels: list[str]):
    """
    Check the pictures asked for before any photograph is segmented.

    Raises:
        MissingExtraError: If their library is not installed.
        ValueError: If the model lacks a class to keep in focus, or two classes would share a file.
    """
    from ..editing.lens_blur import check_strength
    from ..editing.matting import matting_library
    from ..utils.names import file_names

    check_strength(extras.strength)
    if extras.mattes or extras.cutouts:
        file_names(labels, "The model's classes")
    unknown = [name for name in extras.bokeh if name not in labels]
    if unknown:
        raise ValueError(f"--bokeh {', '.join(unknown)}: the model has no such class, only {', '.join(labels)}.")
    if extras.cutouts or extras.bokeh or extras.refine:
        matting_library()


def record_class_names(output: Path, labels: list[str], results: Results, jobs: Iterable[Job]):
    """
    Write the names of the classes beside the label maps, or say why this is not done.

    Args:
        output (`Path`): The folder for results.
        labels (`list[str]`): The model's classes.
        results ([`Results`]): Its records.
        jobs (`Iterable[Job]`): What is about to be made.

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
        error_console.print(f"{CLASSES_FILE} was not written. {error}", markup=False)


def plan_jobs(arguments: list[str], output: Path, extras: Extras, suffix: str = ".png") -> list[Job]:
    """
    Return a job for each photograph.

    Raises:
        ValueError: If two photographs share an output file, or an output would replace a photograph.
    """
    photos = choose_photos(arguments, output)
    jobs = [extras.job(photo, (output / relative).with_suffix(suffix)) for photo, relative in photos]
    owners: dict[Path, Path] = {job.photo.resolve(): job.photo for job in jobs}
    for job in jobs:
        for path in job.outputs:
            other = owners.setdefault(path.resolve(), job.photo)
            if path.resolve() == other.resolve():
                raise ValueError(f"Writing {path} would replace the photograph {other}. Choose another --output.")
            if other != job.photo or job.outputs.count(path) > 1:
                raise ValueError(
                    f"{other} and {job.photo} would both be written to {path}. Rename one, or segment them into "
                    "different folders."
                )
    return jobs


def job_standing(results: Results, origins: Mapping[Path, Origin]) -> Standing:
    """
    Compare the outputs of a job, which are made together, with what they would be made from now. If one has to be
    made, a foreign one among them is in the way.
    """
    from ..utils.resuming import Standing

    found = {path: results.standing(path, origin) for path, origin in origins.items()}
    foreign = [f"{path} {each.reason}" for path, each in found.items() if each.is_foreign]
    is_finished = all(each.is_finished for each in found.values())
    reasons = [each.reason for each in found.values() if not each.is_finished and each.reason]
    return Standing(is_finished, bool(foreign), foreign[0] if foreign else next(iter(reasons), ""))


def outdated_pictures(results: Results, job: Job, prediction: Mapping[str, Any]) -> list[Path]:
    """Return pictures of earlier runs beside a label map, not asked for this time, that were made otherwise."""
    every = Extras(True, True, True, True, ("any",)).job(job.photo, job.label_map)
    found = []
    for path in sorted({*every.outputs} - {*job.outputs}):
        record = results.read(path)
        if record is not None and path.exists():
            settings = record["made_from"].get("settings", {})
            if any(settings.get(name) != value for name, value in prediction.items()):
                found.append(path)
    return found


def write_pictures(pictures: Iterable[tuple[str, PIL.Image.Image]], folder: Path):
    """Write a PNG for each name into a folder."""
    for name, picture in pictures:
        picture.save(folder / f"{name}.png", format="PNG")


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
    import numpy as np
    import PIL.Image

    from ..editing import bokeh as out_of_focus
    from ..editing import cut_out, firm_matte, joined_matte, refine_matte
    from ..inference.mattes import as_array
    from ..utils.files import file_name

    present = [index for index in np.unique(label_map).tolist() if index < len(labels)]
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
    out_of_focus(photo, focus, extras.strength).save(partials[job.bokeh], format="PNG")
    return "" if in_focus else f"no {' and no '.join(extras.bokeh)} in it, {job.bokeh.name} is blurred everywhere"


def segment_photo(
    segmenter: Segmenter, job: Job, extras: Extras, results: Results, prediction: Mapping[str, Any]
) -> str:
    """Segment one photograph, write its files and return a line of report."""
    from ..data.annotations import write_label_map
    from ..editing import overlay_image, priors_image, with_legend
    from ..images import open_image
    from ..utils.text import format_bytes

    origins = {path: origin.describe() for path, origin in extras.origins(job, prediction).items()}
    photo = open_image(job.photo)
    found = segmenter(photo)
    labels, remarks = segmenter.labels, []
    with results.writing(origins, job.folders) as partials:
        write_label_map(found.label_map, partials[job.label_map], labels, job.photo.name, extras.annotation_format)
        if job.overlay is not None:
            overlay = with_legend(overlay_image(photo, found.label_map, len(labels)), found.label_map, labels)
            overlay.save(partials[job.overlay], format="PNG")
        if found.mattes is not None:
            remarks.append(write_edits(photo, found.label_map, found.mattes, job, partials, labels, extras))
        if job.priors is not None:
            priors = priors_image(photo, found.semantic_priors or [], segmenter.predictor.num_semantic_labels or 0)
            priors.save(partials[job.priors], format="PNG")
    outdated = outdated_pictures(results, job, prediction)
    if outdated:
        names = ", ".join(path.name for path in outdated)
        remarks.append(f"not renewed: {names}, made otherwise by an earlier run")
    return "; ".join(
        (
            f"{job.photo} -> {job.label_map}: {photo.width} x {photo.height}, {segmenter.device}, "
            f"{str(segmenter.dtype).removeprefix('torch.')}, {found.seconds:.1f} s, "
            f"peak memory {format_bytes(found.peak_bytes)}",
            *filter(None, remarks),
        )
    )
