"""Segment and edit photos for the page, and store the results. Independent of the user interface."""

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

from ..data.label_images import class_palette, write_label_image
from ..editing import bokeh, cut_out, firm_matte
from ..images import open_image
from ..inference.mattes import joined_matte
from ..inference.memory import PeakMemory
from ..inference.predictor import ModelPredictor
from ..inference.segmenter import Segmentation, Segmenter
from ..scenes import render_scene
from ..scenes.photograph import encode_jpeg
from ..utils.files import file_name
from ..utils.names import file_names
from ..utils.png import write_png
from ..utils.text import format_bytes
from .deadline import Deadline
from .uploads import read_upload


JPEG_QUALITY = 92
# Size and name of the drawn scene, for visitors without a photo at hand.
SCENE_SIZE, SCENE_NAME = (2048, 1536), "scene.jpg"
# Number of results kept. The result of a 4K photo takes about 25 MB on disk.
KEPT_RESULTS = 32


class Shelf:
    """
    Folders of results, of which only the newest are kept.

    Args:
        root (`Path`): Parent folder of the results.
        kept (`int`): Number of folders to keep.
    """

    def __init__(self, root: Path, kept: int = KEPT_RESULTS):
        self.root, self.kept = root, kept
        self.folders: OrderedDict[Path, None] = OrderedDict()
        self.lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)

    def new(self) -> Path:
        """Create an empty folder with an unguessable name; delete the oldest folders if there are too many."""
        folder = Path(tempfile.mkdtemp(dir=self.root))
        with self.lock:
            self.folders[folder] = None
            oldest = list(self.folders)[: -self.kept]
        for path in oldest:
            self.drop(path)
        return folder

    def drop(self, folder: Path):
        """Delete a folder if it still exists."""
        with self.lock:
            self.folders.pop(folder, None)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class FoundClass:
    """
    A class present in a photo.

    Attributes:
        index (`int`): Id of the class.
        name (`str`): Name of the class.
        colour (`str`): Colour of the class as `#rrggbb`.
        share (`float`): Fraction of the pixels that have the class.
    """

    index: int
    name: str
    colour: str
    share: float


@dataclass(frozen=True)
class Result:
    """
    A segmented photo, whose files are in a folder of its own.

    Attributes:
        folder (`Path`): The folder.
        stem (`str`): Name of the photo without suffix.
        width (`int`): Width of the upright photo in pixels.
        height (`int`): Height of the upright photo in pixels.
        classes (`tuple[FoundClass, ...]`): The classes present, largest first.
        report (`str`): Time and memory of the last step, for display.
        edits (`Mapping[str, Path]`): Files of the edited photos by name of the edit.
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
        """Return the path of the photo as uploaded."""
        return self.folder / "original"

    @property
    def photo(self) -> Path:
        """Return the path of the photo as the model saw it: a JPEG file, upright, without metadata."""
        return self.folder / f"{self.stem}.jpg"

    @property
    def label_map(self) -> Path:
        """Return the path of the label map: an 8-bit PNG file with a palette, whose pixel values are class ids."""
        return self.folder / f"{self.stem}_label_map.png"

    @property
    def labels(self) -> Path:
        """Return the path of the raw class ids: one byte per pixel, row by row, gzip-compressed."""
        return self.folder / "labels.gz"

    def matte(self, name: str) -> Path:
        """Return the path of a class's matte: a PNG file, 8-bit grey."""
        return self.folder / f"{file_name(name)}_matte_{self.stem}.png"

    @property
    def mattes(self) -> list[Path]:
        """Return the paths of the mattes of all classes, largest class first."""
        return [self.matte(found.name) for found in self.classes]

    @property
    def names(self) -> list[str]:
        """Return the names of the classes, largest first."""
        return [found.name for found in self.classes]


def found_classes(label_map: np.ndarray, labels: Sequence[str]) -> tuple[FoundClass, ...]:
    """Find the classes present in a label map, largest first."""
    counts = np.bincount(label_map.ravel(), minlength=len(labels))[: len(labels)]
    palette = class_palette(len(labels))
    return tuple(
        FoundClass(index, labels[index], "#{:02x}{:02x}{:02x}".format(*palette[index]), counts[index] / label_map.size)
        for index in np.argsort(-counts, kind="stable").tolist()
        if counts[index]
    )


class Studio:
    """
    Segments and edits photos, one after the other, and stores the results as files.

    Args:
        segmenter (`Segmenter`): A model that makes mattes.
        root (`Path`): Folder for the results.
        max_megapixels (`float`, *optional*, defaults to 50): Maximum size of a photo in millions of pixels.
        timeout (`float`, *optional*, defaults to 300): Time limit in seconds for segmenting or editing a photo.

    Raises:
        ValueError: If a limit is not above 0, or files of two classes would have the same name.
    """

    def __init__(self, segmenter: Segmenter, root: Path, max_megapixels: float = 50, timeout: float = 300):
        if not max_megapixels > 0:
            raise ValueError(f"max_megapixels must be above 0, got {max_megapixels}.")
        file_names(segmenter.labels, "The model's classes")
        self.segmenter, self.max_megapixels = segmenter, max_megapixels
        self.shelf, self.deadline = Shelf(root), Deadline(timeout)
        if isinstance(segmenter.predictor, ModelPredictor):
            self.deadline.watch(segmenter.predictor.model)

    def segment(self, path: str | Path, name: str) -> Result:
        """
        Segment a photo.

        Args:
            path (`str` or `Path`): The file, which is not modified.
            name (`str`): Name of the uploaded file.

        Raises:
            MemoryError: If the photo does not fit into memory.
            TimeoutError: If segmentation exceeds the time limit.
            ValueError: If the file is not a photo, too large or damaged.
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
        """Write the files of a result."""
        labels, label_map, mattes = self.segmenter.labels, segmentation.label_map, segmentation.mattes
        if mattes is None:
            raise ValueError("The page needs mattes: create the segmenter with mattes=True.")
        report = (
            f"{photo.width} x {photo.height} pixels, {segmentation.seconds:.1f} s on {self.segmenter.device}, "
            f"peak memory {format_bytes(segmentation.peak_bytes)}"
        )
        classes = found_classes(label_map, labels)
        result = Result(folder, file_name(stem), photo.width, photo.height, classes, report)
        photo.save(result.photo, quality=JPEG_QUALITY)
        write_label_image(label_map, result.label_map)
        result.labels.write_bytes(gzip.compress(label_map.tobytes(), compresslevel=1))
        for found in classes:
            self.deadline.check()
            write_png(PIL.Image.fromarray(mattes[found.index]), result.matte(found.name))
        return result

    def segment_scene(self) -> Result:
        """Draw a random scene and segment it."""
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
        Cut a class out of its photo and store it as a PNG file with alpha, see [`cut_out`].

        Args:
            result (`Result`): The segmented photo.
            name (`str`): Name of the class.

        Returns:
            `Result`: The result with the edit `"Cut-out"` added.

        Raises:
            ImportError: If pymatting is not installed.
            ValueError: If the photo does not contain the class or has been deleted.
        """

        def make(photo: PIL.Image.Image, mattes: list[PIL.Image.Image]):
            write_png(cut_out(photo, firm_matte(mattes[0])), path)

        path = result.folder / f"{file_name(name)}_cutout_{result.stem}.png"
        return self.edit(result, "Cut-out", path, [name], make)

    def blur(self, result: Result, focus: Sequence[str], strength: float) -> Result:
        """
        Blur everything but some classes and store the photo as a JPEG file, see [`bokeh`].

        Args:
            result (`Result`): The segmented photo.
            focus (`Sequence[str]`): Names of the classes that stay in focus.
            strength (`float`): Radius of the blur, as a fraction of the diagonal.

        Returns:
            `Result`: The result with the edit `"Bokeh"` added.

        Raises:
            ImportError: If pymatting is not installed.
            ValueError: If `focus` is empty or the photo does not contain one of its classes, if the strength is not
                above 0 and at most 0.1, or if the photo has been deleted.
        """
        if not focus:
            raise ValueError("Select at least one class to keep in focus.")

        def make(photo: PIL.Image.Image, mattes: list[PIL.Image.Image]):
            in_focus = joined_matte([firm_matte(matte) for matte in mattes], photo.size)
            bokeh(photo, in_focus, strength).save(path, quality=JPEG_QUALITY)

        # The name is unique to the settings; otherwise browsers would show a cached, older file.
        path = result.folder / f"{result.stem}_bokeh_{'~'.join(file_names(focus))}_{strength:g}.jpg"
        return self.edit(result, "Bokeh", path, focus, make)

    def edit(
        self,
        result: Result,
        name: str,
        path: Path,
        classes: Sequence[str],
        make: Callable[[PIL.Image.Image, list[PIL.Image.Image]], None],
    ) -> Result:
        """Let a function write an edited photo from the photo and the mattes of some classes."""
        start = time.perf_counter()
        with self.deadline.running(), PeakMemory("cpu") as memory:
            mattes = self.open_mattes(result, classes)
            make(open_image(result.original), mattes)
        seconds = time.perf_counter() - start
        report = f"{name} of {', '.join(classes)}: {seconds:.1f} s, peak memory {format_bytes(memory.bytes)}"
        return replace(result, edits={**result.edits, name: path}, report=report)

    def open_mattes(self, result: Result, names: Sequence[str]) -> list[PIL.Image.Image]:
        """
        Open the mattes of some classes.

        Raises:
            ValueError: If the photo does not contain a class or has been deleted.
        """
        unknown = [name for name in names if name not in result.names]
        if unknown:
            raise ValueError(f"The photo contains no {', '.join(unknown)}. Choose from {', '.join(result.names)}.")
        if not result.folder.exists():
            raise ValueError("The result has been deleted. Upload the photo again.")
        return [PIL.Image.open(result.matte(name)) for name in names]
