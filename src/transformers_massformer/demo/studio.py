"""What the page does with a photograph. Of pages it knows nothing."""

import gzip
import os
import random
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import PIL.Image

from ..editing import bokeh, class_palette, cut_out, firm_matte, joined_matte, label_map_image
from ..inference.memory import PeakMemory
from ..inference.predictor import ModelPredictor
from ..inference.segmenter import Segmentation, Segmenter
from ..models.image_processing_massformer import open_image
from ..scenes import render_scene
from ..scenes.photograph import encode_jpeg
from ..utils.files import file_name
from ..utils.text import format_bytes
from .deadline import Deadline
from .uploads import read_upload


JPEG_QUALITY = 92
# A drawn scene, for who has no photograph at hand.
SCENE_SIZE, SCENE_NAME = (2048, 1536), "scene.jpg"
# Results that are kept. One of a 4K photograph takes about 25 MB on disk.
KEPT_RESULTS = 32


class Shelf:
    """
    Folders of results, of which the newest are kept.

    Args:
        root (`Path`): The folder that they are made in.
        kept (`int`): How many.
    """

    def __init__(self, root: Path, kept: int = KEPT_RESULTS):
        self.root, self.kept = root, kept
        self.folders: OrderedDict[Path, None] = OrderedDict()
        self.lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)

    def new(self) -> Path:
        """An empty folder whose name cannot be guessed; the oldest goes if there are too many."""
        folder = Path(tempfile.mkdtemp(dir=self.root))
        with self.lock:
            self.folders[folder] = None
            oldest = list(self.folders)[: -self.kept]
        for path in oldest:
            self.drop(path)
        return folder

    def drop(self, folder: Path):
        """Removes a folder, if it is still there."""
        with self.lock:
            self.folders.pop(folder, None)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class FoundClass:
    """
    A class that a photograph shows.

    Attributes:
        index (`int`): Its id.
        name (`str`): Its name.
        colour (`str`): Its colour, as `#rrggbb`.
        share (`float`): Its share of the pixels.
    """

    index: int
    name: str
    colour: str
    share: float


@dataclass(frozen=True)
class Result:
    """
    A segmented photograph; its files lie in a folder of its own.

    Attributes:
        folder (`Path`): The folder.
        stem (`str`): What the photograph is called, without suffix.
        width, height (`int`): Its size in pixels, upright.
        classes (`tuple[FoundClass, ...]`): What it shows, the largest first.
        report (`str`): Time and memory that the last step took, for people.
        edits (`Mapping[str, Path]`): Pictures made of it since, by what they are.
    """

    folder: Path
    stem: str
    width: int
    height: int
    classes: tuple[FoundClass, ...]
    report: str
    edits: Mapping[str, Path] = field(default_factory=dict)

    @property
    def original(self) -> Path:
        """The photograph as it was sent."""
        return self.folder / "original"

    @property
    def photo(self) -> Path:
        """The photograph as the model saw it: upright, without metadata; JPEG."""
        return self.folder / f"{self.stem}.jpg"

    @property
    def label_map(self) -> Path:
        """PNG with a palette, 8 bits per pixel, whose pixel values are the class indices."""
        return self.folder / f"{self.stem}_label_map.png"

    @property
    def labels(self) -> Path:
        """The class indices alone, a byte each, row by row; gzip."""
        return self.folder / "labels.gz"

    def matte(self, name: str) -> Path:
        """A class's soft mask: PNG, 8 bits grey."""
        return self.folder / f"{file_name(name)}_matte_{self.stem}.png"

    @property
    def mattes(self) -> list[Path]:
        return [self.matte(found.name) for found in self.classes]

    @property
    def names(self) -> list[str]:
        """Names of the classes, the largest first."""
        return [found.name for found in self.classes]


def found_classes(label_map: np.ndarray, labels: Sequence[str]) -> tuple[FoundClass, ...]:
    """The classes that a label map has, the largest first."""
    counts = np.bincount(label_map.ravel(), minlength=len(labels))[: len(labels)]
    palette = class_palette(len(labels))
    return tuple(
        FoundClass(index, labels[index], "#{:02x}{:02x}{:02x}".format(*palette[index]), counts[index] / label_map.size)
        for index in np.argsort(-counts, kind="stable").tolist()
        if counts[index]
    )


class Studio:
    """
    Segments photographs and edits them, one after the other, and keeps the results as files.

    Args:
        segmenter (`Segmenter`): A model that makes mattes.
        root (`Path`): Folder for the results.
        max_megapixels (`float`, *optional*, defaults to 50): Larger photographs are refused, in millions of pixels.
        timeout (`float`, *optional*, defaults to 300): Seconds of computing for a photograph or an edit.

    Raises:
        ValueError: If a limit is not above 0.
    """

    def __init__(self, segmenter: Segmenter, root: Path, max_megapixels: float = 50, timeout: float = 300):
        if not max_megapixels > 0:
            raise ValueError(f"The largest photograph must have more than 0 megapixels, got {max_megapixels}.")
        self.segmenter, self.max_megapixels = segmenter, max_megapixels
        self.shelf, self.deadline = Shelf(root), Deadline(timeout)
        if isinstance(segmenter.predictor, ModelPredictor):
            self.deadline.watch(segmenter.predictor.model)

    def segment(self, path: str | Path, name: str) -> Result:
        """
        Segments a photograph.

        Args:
            path (`str` or `Path`): The file; it stays as it is.
            name (`str`): What its owner calls it.

        Raises:
            MemoryError: If it does not fit into memory.
            TimeoutError: If it takes too long.
            ValueError: If it is no photograph, too large or damaged.
        """
        with self.deadline.running():
            photo = read_upload(path, name, self.max_megapixels)
            segmentation = self.segmenter(photo)
            folder = self.shelf.new()
            try:
                shutil.copyfile(path, folder / "original")
                return self.write(photo, segmentation, folder, Path(name).stem[:64])
            except BaseException:
                self.shelf.drop(folder)
                raise

    def write(self, photo: PIL.Image.Image, segmentation: Segmentation, folder: Path, stem: str) -> Result:
        """Writes a photograph's files."""
        labels, label_map, mattes = self.segmenter.labels, segmentation.label_map, segmentation.mattes
        if mattes is None:
            raise ValueError("The page shows mattes; make the segmenter with mattes=True.")
        report = (
            f"{photo.width} x {photo.height} pixels, {segmentation.seconds:.1f} s on {self.segmenter.device}, "
            f"peak memory {format_bytes(segmentation.peak_bytes)}"
        )
        classes = found_classes(label_map, labels)
        result = Result(folder, file_name(stem), photo.width, photo.height, classes, report)
        photo.save(result.photo, quality=JPEG_QUALITY)
        label_map_image(label_map, len(labels)).save(result.label_map, bits=8)
        result.labels.write_bytes(gzip.compress(label_map.tobytes(), compresslevel=1))
        for found in classes:
            self.deadline.check()
            PIL.Image.fromarray(mattes[found.index]).save(result.matte(found.name), compress_level=1)
        return result

    def segment_scene(self) -> Result:
        """Draws a scene that nobody has seen, and segments it."""
        image = render_scene(random.randrange(2**31), 0, SCENE_SIZE).image
        descriptor, path = tempfile.mkstemp(dir=self.shelf.root)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(encode_jpeg(image, JPEG_QUALITY))
            return self.segment(path, SCENE_NAME)
        finally:
            os.unlink(path)

    def cut_out(self, result: Result, name: str) -> Result:
        """
        Cuts a class out of its photograph: a PNG with alpha, see [`cut_out`].

        Args:
            result (`Result`): The photograph.
            name (`str`): The class.

        Returns:
            `Result`: The same, with the edit `"Cut-out"`.

        Raises:
            ImportError: If pymatting is not installed.
            ValueError: If the photograph does not show the class, or is no longer kept.
        """

        def make(photo: PIL.Image.Image, mattes: list[PIL.Image.Image]):
            cut_out(photo, firm_matte(mattes[0])).save(path, compress_level=1)

        path = result.folder / f"{file_name(name)}_cutout_{result.stem}.png"
        return self.edit(result, "Cut-out", path, [name], make)

    def blur(self, result: Result, focus: Sequence[str], strength: float) -> Result:
        """
        Puts all but some classes out of focus: a JPEG, see [`bokeh`].

        Args:
            result (`Result`): The photograph.
            focus (`Sequence[str]`): The classes that stay in focus.
            strength (`float`): Radius of the blur, as a share of the diagonal.

        Returns:
            `Result`: The same, with the edit `"Bokeh"`.

        Raises:
            ImportError: If pymatting is not installed.
            ValueError: If there is no class to focus on or the photograph does not show it, if the strength is not
                between 0 and 0.1, or the photograph is no longer kept.
        """
        if not focus:
            raise ValueError("Choose a class that stays in focus.")

        def make(photo: PIL.Image.Image, mattes: list[PIL.Image.Image]):
            in_focus = joined_matte([firm_matte(matte) for matte in mattes], photo.size)
            bokeh(photo, in_focus, strength).save(path, quality=JPEG_QUALITY)

        # A name of its own for each, so that a page does not show an older one.
        path = result.folder / f"{result.stem}_bokeh_{file_name('_'.join(focus))}_{strength:g}.jpg"
        return self.edit(result, "Bokeh", path, focus, make)

    def edit(
        self,
        result: Result,
        name: str,
        path: Path,
        classes: Sequence[str],
        make: Callable[[PIL.Image.Image, list[PIL.Image.Image]], None],
    ) -> Result:
        """Lets a function write a picture, from a photograph and mattes of its classes."""
        start = time.perf_counter()
        with self.deadline.running(), PeakMemory("cpu") as memory:
            mattes = self.open_mattes(result, classes)
            make(open_image(result.original), mattes)
        seconds = time.perf_counter() - start
        report = f"{name} of {', '.join(classes)}: {seconds:.1f} s, peak memory {format_bytes(memory.bytes)}"
        return replace(result, edits={**result.edits, name: path}, report=report)

    def open_mattes(self, result: Result, names: Sequence[str]) -> list[PIL.Image.Image]:
        unknown = [name for name in names if name not in result.names]
        if unknown:
            raise ValueError(f"The photograph shows no {', '.join(unknown)}; it shows {', '.join(result.names)}.")
        if not result.folder.exists():
            raise ValueError("The result is no longer kept here. Send the photograph again.")
        return [PIL.Image.open(result.matte(name)) for name in names]
