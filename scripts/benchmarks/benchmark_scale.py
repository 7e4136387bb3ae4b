"""
Measure what segmenting many photographs costs: several processes, as actors of a cluster, take
photographs from files to label maps. Prints a table for docs/scale.md, in photographs per core-hour.

    python scripts/benchmarks/benchmark_scale.py --photos photos --model hub/massformer-photo
"""

import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import PIL.Image
import psutil
import typer

from transformers_massformer.utils.process_memory import resident_peak
from transformers_massformer.utils.text import markdown_table


# Bytes of a file; smaller ones have too few details for photographs of this size.
SMALLEST = 200_000


@dataclass(frozen=True)
class Share:
    """
    What one process measured.

    Attributes:
        seconds (`float`): Wall time of its photographs.
        cpu_seconds (`float`): CPU time of them.
        memory (`int`): Peak memory of the process in bytes.
        start_seconds (`float`): CPU time from its start to a loaded model.
        rows_bytes (`int`): Size of its results as a Parquet file.
    """

    seconds: float
    cpu_seconds: float
    memory: int
    start_seconds: float
    rows_bytes: int


def write_photos(sources: list[Path], size: tuple[int, int], count: int, folder: Path) -> list[Path]:
    """Write photographs of one size as JPEG files."""
    folder.mkdir(parents=True)
    written = []
    for index, source in enumerate(islice(cycle(sources), count)):
        photo = PIL.Image.open(source).convert("RGB").resize(size, PIL.Image.Resampling.LANCZOS)
        written.append(folder / f"{index:03}.jpg")
        photo.save(written[-1], quality=90)
    return written


def measure_share(photos: list[Path], output: Path, model: str, dtype: str, threads: int) -> Share:
    """Segment photographs in this process, as files and as rows."""
    import torch

    from transformers_massformer.cluster.shards import Shards, make_row
    from transformers_massformer.cluster.storage import Folder
    from transformers_massformer.inference.segmenter import Segmenter
    from transformers_massformer.segmenting.jobs import Extras, plan_jobs
    from transformers_massformer.segmenting.steps import Steps
    from transformers_massformer.utils.resuming import Results

    torch.set_num_threads(threads)
    segmenter = Segmenter(model, "cpu", getattr(torch, dtype))
    process = psutil.Process()
    start_seconds = sum(process.cpu_times()[:2])
    extras = Extras()
    steps = Steps.around(segmenter, Results(output), extras, {})
    shards = Shards(Folder(str(output / "rows")), {})
    jobs = plan_jobs([(photo, Path(photo.name)) for photo in photos], output, extras)
    start = time.perf_counter()
    for job in jobs:
        loaded = steps.read(job)
        found = segmenter(loaded.photo)
        steps.write(loaded, found)
        (made_from,) = loaded.made_from.values()
        shards.add(make_row(job, found.label_map, steps.labels, model, found.seconds, made_from))
    seconds = time.perf_counter() - start
    cpu_seconds = sum(process.cpu_times()[:2]) - start_seconds
    shards.flush()
    rows_bytes = sum(path.stat().st_size for path in (output / "rows").iterdir())
    return Share(seconds, cpu_seconds, resident_peak() or 0, start_seconds, rows_bytes)


def measure(photos: list[Path], output: Path, model: str, dtype: str, processes: int, threads: int) -> list[str]:
    """Segment photographs in several processes at once and return a row of the table."""
    shares = [photos[index::processes] for index in range(processes)]
    with get_context("spawn").Pool(processes) as pool:
        measured = pool.starmap(
            measure_share, [(share, output / f"{index}", model, dtype, threads) for index, share in enumerate(shares)]
        )
    count, width_height = len(photos), PIL.Image.open(photos[0]).size
    seconds = sum(share.seconds for share in measured)
    made = sum(path.stat().st_size for path in output.glob("*/*.png"))
    print({"dtype": dtype, "size": width_height, "shares": [asdict(share) for share in measured]}, file=sys.stderr)
    return [
        f"{width_height[0]} x {width_height[1]}",
        dtype,
        f"{seconds / count:.1f}",
        f"{sum(share.cpu_seconds for share in measured) / count:.1f}",
        f"{3600 * count / (seconds * threads):.0f}",
        f"{max(share.memory for share in measured) / 2**30:.1f} GiB",
        f"{sum(photo.stat().st_size for photo in photos) / count / 1e6:.2f} MB",
        f"{made / count / 1e6:.3f} MB",
        f"{sum(share.rows_bytes for share in measured) / count / 1e6:.3f} MB",
    ]


def main(
    photos: Annotated[Path, typer.Option(help="Folder of photographs.")],
    model: Annotated[str, typer.Option(help="Model folder.")],
    sizes: Annotated[str, typer.Option(help="Sizes to scale them to.")] = "1152x864,4096x3072",
    counts: Annotated[str, typer.Option(help="Photographs of each size.")] = "16,4",
    dtypes: Annotated[str, typer.Option(help="Precisions of the weights.")] = "float32,bfloat16",
    processes: Annotated[int, typer.Option(help="Processes at work at once.")] = 2,
    threads: Annotated[int, typer.Option(help="Threads of each process.")] = 1,
):
    """Measure what segmenting many photographs costs."""
    # Inherited by the processes, before they load PyTorch.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    sources = sorted(path for path in photos.rglob("*.jpg") if path.stat().st_size > SMALLEST)
    rows = [
        ["size", "type", "seconds", "CPU-seconds", "per core-hour", "memory", "JPEG", "PNG", "row of Parquet"],
    ]
    for size, count in zip(sizes.split(","), counts.split(","), strict=True):
        width, height = map(int, size.split("x"))
        for dtype in dtypes.split(","):
            with tempfile.TemporaryDirectory() as folder:
                scaled = write_photos(sources, (width, height), int(count), Path(folder) / "photos")
                rows.append(measure(scaled, Path(folder) / "out", model, dtype, processes, threads))
    print(markdown_table(rows))
    print(f"{processes} processes of {threads} threads")


if __name__ == "__main__":
    typer.run(main)
