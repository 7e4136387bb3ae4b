"""
Measure how many photographs `massformer segment` makes in a minute: one after the other and in its pipeline, with the
PNGs of both strategies, and with a stand-in for a model that another device computes. Prints a Markdown table.
"""

import resource
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import PIL.Image
import psutil
import torch
import typer

from transformers_massformer.cli.console import error_console as console
from transformers_massformer.images import open_image
from transformers_massformer.inference.predictor import ModelPredictor, Prediction, Predictor
from transformers_massformer.inference.segmenter import Segmenter
from transformers_massformer.photo_files import find_photos
from transformers_massformer.segmenting.jobs import Extras, plan_jobs
from transformers_massformer.segmenting.pipeline import Pipeline
from transformers_massformer.segmenting.steps import Outcome, Steps
from transformers_massformer.utils import png
from transformers_massformer.utils.files import link_or_copy
from transformers_massformer.utils.resuming import Results
from transformers_massformer.utils.text import format_bytes, markdown_table


# Seconds between two looks at the memory.
INTERVAL = 0.1
# Pillow's choice, which depends on the image, and this package's.
STRATEGIES = {"Pillow's": -1, "runs": png.STRATEGY}


class OtherDevice(Predictor):
    """
    Stands in for a model on a GPU: waits without using the processor, and returns what a model found before.

    Args:
        model ([`Predictor`]): Finds the classes of the photographs once.
        photos (`list[Path]`): The photographs, of different contents.
        seconds (`float`): Time to wait for each.
    """

    def __init__(self, model: Predictor, photos: list[Path], seconds: float):
        super().__init__(model.labels, model.device, model.dtype)
        self.seconds, self.found = seconds, {}
        for path in photos:
            photo = open_image(path)
            self.found[self.key(photo)] = model.predict(photo, mattes=True)

    @staticmethod
    def key(image: PIL.Image.Image) -> bytes:
        """Identify a photograph by few of its pixels."""
        return image.reduce(max(1, min(image.size) // 32)).tobytes()

    def predict_whole(self, image: PIL.Image.Image, mattes: bool = False, semantic_priors: bool = False) -> Prediction:
        found = self.found[self.key(image)]
        time.sleep(self.seconds)
        return found if mattes else Prediction(found.label_map)


class Memory(threading.Thread):
    """Follows the resident memory of this process, until it is stopped."""

    def __init__(self):
        super().__init__(daemon=True)
        self.stopped, self.bytes = threading.Event(), []

    def run(self):
        process = psutil.Process()
        while not self.stopped.wait(INTERVAL):
            self.bytes.append(process.memory_info().rss)

    def halves(self) -> tuple[int, int]:
        """Return the highest value of the first and of the second half of the time."""
        middle = max(1, len(self.bytes) // 2)
        return max(self.bytes[:middle], default=0), max(self.bytes[middle:], default=0)


def processor_seconds() -> float:
    """Return the processor time of this process in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def repeated(folder: Path, count: int, size: int, work: Path) -> list[Path]:
    """Write photographs of a folder at a size in megapixels, and give them as many names as are wanted."""
    found = [path for path, _ in find_photos([str(folder)], work).photos]
    made = []
    for path in found:
        photo = open_image(path)
        scale = (size * 1e6 / (photo.width * photo.height)) ** 0.5
        target = work / "sources" / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        sides = round(photo.width * scale), round(photo.height * scale)
        photo.resize(sides, PIL.Image.Resampling.LANCZOS).save(target, quality=90)
        made.append(target)
    named = []
    for index in range(count):
        named.append(work / "photos" / f"{index:04}.jpg")
        link_or_copy(made[index % len(made)], named[-1])
    return named


def measure(photos: list[Path], segmenter: Segmenter, extras: Extras, workers: int, output: Path) -> list[str]:
    """Segment photographs and return the cells of a row: rates, times, sizes and memory."""
    jobs = plan_jobs([(path, Path(path.name)) for path in photos], output, extras)
    pipeline = Pipeline(Steps.around(segmenter, Results(output), extras, {}), segmenter, workers)
    failed: list[str] = []

    def report(outcome: Outcome):
        if outcome.error:
            failed.append(outcome.error)

    memory = Memory()
    memory.start()
    start, used = time.perf_counter(), processor_seconds()
    pipeline.run(jobs, report)
    seconds, used = time.perf_counter() - start, processor_seconds() - used
    memory.stopped.set()
    memory.join()
    if failed:
        raise RuntimeError(f"{len(failed)} photographs failed: {failed[0]}")
    size = sum(path.stat().st_size for path in output.rglob("*.png")) / len(photos)
    shutil.rmtree(output)
    first, second = map(format_bytes, memory.halves())
    return [
        f"{60 * len(photos) / seconds:.1f}",
        f"{seconds / len(photos):.3f}",
        f"{used / len(photos):.3f}",
        f"{size / 1e6:.2f}",
        f"{first} / {second}",
    ]


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of photographs, which are resized and repeated.")],
    count: Annotated[int, typer.Option(help="Number of photographs.", min=2)] = 200,
    size: Annotated[int, typer.Option(help="Megapixels of each.", min=1)] = 1,
    model: Annotated[str, typer.Option(help="Folder of the model.")] = "hub/massformer-photo",
    seconds: Annotated[
        float, typer.Option(help="Let a stand-in take this time per photograph instead of the model; 0: the model.")
    ] = 0.0,
    workers: Annotated[str, typer.Option(help="Numbers of threads, comma-separated.")] = "0,2",
    pictures: Annotated[
        bool, typer.Option("--pictures/--label-maps", help="Whether overlays and mattes are written, too.")
    ] = True,
):
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        photos = repeated(folder, count, size, work)
        predictor: Predictor = ModelPredictor.load(model, "cpu", torch.float32)
        if seconds:
            predictor = OtherDevice(predictor, sorted((work / "sources").iterdir()), seconds)
        rows = [["files", "PNGs", "workers", "photos / min", "s / photo", "CPU s / photo", "MB / photo", "memory"]]
        extras, segmenter = Extras(overlay=pictures, mattes=pictures), Segmenter(predictor, mattes=pictures)
        segmenter(open_image(photos[0]))
        what = "label map, overlay, mattes" if pictures else "label map"
        for strategy, number in [("Pillow's", 0), *(("runs", int(each)) for each in workers.split(","))]:
            png.STRATEGY = STRATEGIES[strategy]
            console.print(f"{what}, {strategy}, {number} workers", markup=False)
            cells = measure(photos, segmenter, extras, number, work / "out")
            rows.append([what, strategy, str(number), *cells])
        print(markdown_table(rows))


if __name__ == "__main__":
    typer.run(main)
