"""Plan the files of segmented photographs: label maps, overlays, mattes, cut-outs and blurred pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.formats import AnnotationFormat


if TYPE_CHECKING:
    import PIL.Image

    from ..inference.predictor import Predictor
    from ..inference.segmenter import Segmenter
    from ..utils.resuming import Origin, Results, Standing


@dataclass(frozen=True)
class Remote:
    """
    A photograph that is not a file of its own on this machine.

    Args:
        root (`str`): URI that leads to its storage; empty for this machine's.
        path (`str`): The file in that storage.
        version (`str`): What tells whether it has changed.
        row (`int`, *optional*): Row of a Parquet file with the photograph.
    """

    root: str
    path: str
    version: str
    row: int | None = None

    def __str__(self) -> str:
        scheme, separator, _ = self.root.partition("://")
        return f"{scheme if separator else ''}{separator}{self.path}" + ("" if self.row is None else f"#{self.row}")


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
    # Of a photograph elsewhere; `photo` is then what its results are named after.
    remote: Remote | None = None

    @property
    def name(self) -> str:
        """Return the photograph's path or address."""
        return str(self.photo if self.remote is None else self.remote)

    def origin(self, settings: Mapping[str, Any]) -> Origin:
        """Return what a result with these settings is made from."""
        from ..utils.fingerprint import Origin

        if self.remote is None:
            return Origin({"photo": self.photo}, settings)
        return Origin({}, {**settings, "photo": f"{self.remote} {self.remote.version}"})

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
class Loaded:
    """
    A photograph in memory.

    Attributes:
        job ([`Job`]): The photograph's file and the files to write.
        photo (`PIL.Image.Image`): As [`open_image`] reads it.
        made_from (`dict[Path, dict]`): What each file to write is made from, by [`Origin.describe`].
    """

    job: Job
    photo: PIL.Image.Image
    made_from: dict[Path, dict[str, Any]]


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

    @property
    def edits_colours(self) -> bool:
        """Return whether pictures are made with the matting library."""
        return self.cutouts or bool(self.bokeh) or self.refine

    def segmenter(self, predictor: Predictor) -> Segmenter:
        """Return a segmenter that finds what these pictures need."""
        from ..inference.segmenter import Segmenter

        return Segmenter(predictor, semantic_priors=self.priors, mattes=self.need_mattes)

    def job(self, photo: Path, label_map: Path, remote: Remote | None = None) -> Job:
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
            remote=remote,
        )

    def origins(self, job: Job, prediction: Mapping[str, Any]) -> dict[Path, Origin]:
        """
        Return what each output of a job is made from.

        Args:
            job ([`Job`]): The photograph and its files.
            prediction (`Mapping[str, Any]`): Settings of the prediction, see [`prediction_settings`].
        """
        edited = {"refine_mattes": self.refine}
        own: dict[Path | None, dict[str, Any]] = {
            # Label maps in COCO format contain the photograph's name.
            job.label_map: {"format": self.annotation_format}
            | ({"name": job.photo.name} if job.label_map.suffix == ".json" else {}),
            job.mattes: edited,
            job.cutouts: edited,
            job.bokeh: {**edited, "bokeh": sorted(self.bokeh), "bokeh_strength": self.strength},
        }
        return {path: job.origin({**prediction, **own.get(path, {})}) for path in job.outputs}


def plan_jobs(
    photos: Iterable[tuple[Path, Path]], output: Path, extras: Extras, remotes: Mapping[Path, Remote] | None = None
) -> list[Job]:
    """
    Return a job for each photograph.

    Args:
        photos (`Iterable[tuple[Path, Path]]`): Photographs, and where their results belong in the output folder.
        output (`Path`): The folder for results.
        extras ([`Extras`]): Pictures to write beside the label maps.
        remotes (`Mapping[Path, Remote]`, *optional*): Those of the photographs that are elsewhere.

    Raises:
        ValueError: If two photographs share an output file, or an output would replace a photograph.
    """
    suffix = extras.annotation_format.suffix
    elsewhere = remotes or {}
    jobs = [
        extras.job(photo, (output / relative).with_suffix(suffix), elsewhere.get(photo)) for photo, relative in photos
    ]
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
