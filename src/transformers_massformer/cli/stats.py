"""massformer stats: the statistics of a data set, or what is wrong with it."""

import csv
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.layout import (
    LABELS,
    Fault,
    Pair,
    Split,
    check_faults,
    choose_split,
    describe_faults,
    find_splits,
    full_split_name,
)
from ..data.statistics import StatisticsTable, summarize
from ..data.statistics_plot import plot_distributions
from ..data.verification import verify
from .console import console, fail, print_table, progress_bar


@contextmanager
def worker_threads(count: int) -> Generator[Callable[[Callable, Iterable[Any]], Iterator[Any]]]:
    """`map` over threads; what has not begun is dropped when the block ends early."""
    executor = ThreadPoolExecutor(count)
    try:
        yield executor.map
    finally:
        executor.shutdown(cancel_futures=True)


def choose_splits(directory: Path, names: list[str]) -> dict[str, Split]:
    """The splits asked for, by default all."""
    splits = find_splits(directory)
    chosen = {full_split_name(name): choose_split(splits, name) for name in names}
    return chosen or splits


def write_faults(faults: list[Fault], notes: list[Fault], path: Path):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["severity", "kind", "name", "detail"])
        for severity, found in (("fault", faults), ("note", notes)):
            writer.writerows([severity, fault.kind, fault.name, fault.detail] for fault in found)


def run_verification(splits: dict[str, Split], output: Path, threads: int):
    """Checks everything and ends the command with code 1 if something is wrong."""
    faults: list[Fault] = []
    notes: list[Fault] = []
    total = sum(len(split.pairs) for split in splits.values())
    with worker_threads(threads) as map_function, progress_bar() as progress:
        for report in progress.track(verify(splits, map_function), total=total + 1, description="verifying"):
            faults += report.faults
            notes += report.notes
    write_faults(faults, notes, output / "verification.csv")
    for name, split in splits.items():
        console.print(f"{name}: {len(split.pairs):,} images from {split.image_folder}", markup=False)
    if notes:
        console.print(f"to know: {describe_faults(notes)}", markup=False)
    if faults:
        fail(f"{len(faults)} faults. {describe_faults(faults)}. All are in {output / 'verification.csv'}.")
    console.print("No faults.")


def summary_table(summaries: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Table 1 and Figure 8 of the paper in one: a header, and a row for each quantity; splits beside each other."""
    columns = list(summaries.values())
    rows = [["", *summaries], ["images", *(f"{summary['images']:,}" for summary in columns)]]
    for title, quantity in (("diagonal", "diagonal"), ("mIPQ", "mipq")):
        rows.append(
            [title, *(f"{summary[f'{quantity}_mean']:.0f} ± {summary[f'{quantity}_std']:.0f}" for summary in columns)]
        )
    rows.append(["classes", *(str(summary["classes"]) for summary in columns)])
    for label in LABELS:
        shares = (f"{100 * summary['pixel_share'][label]:.2f} %" for summary in columns)
        rows.append([f"{label}, pixels", *shares])
    for label in LABELS:
        rows.append([f"{label}, IPQ", *(f"{summary['ipq_mean'][label]:.0f}" for summary in columns)])
    return rows


def run_statistics(splits: dict[str, Split], output: Path, threads: int):
    """Writes the table of images, the summaries and the picture."""
    for name, split in splits.items():
        check_faults(name, split)
    table = StatisticsTable(output / "images.csv")
    pairs: list[tuple[str, Pair]] = [(name, pair) for name, split in splits.items() for pair in split.pairs]
    open_pairs = [item for item in pairs if not table.is_current(*item)]
    if len(open_pairs) < len(pairs):
        console.print(f"{len(pairs) - len(open_pairs)} of {len(pairs)} are in {table.path} already.", markup=False)
    with worker_threads(threads) as map_function, progress_bar() as progress:
        for _ in progress.track(
            table.compute(open_pairs, map_function), total=len(open_pairs), description="measuring"
        ):
            pass
    table.drop_missing(splits)
    table.write()
    rows = [table.rows[name, pair.image_id] for name, pair in pairs]
    summaries = {name: summarize(row for row in rows if row["split"] == name) for name in splits}
    if len(splits) > 1:
        summaries["all"] = summarize(rows)
    (output / "statistics.json").write_text(json.dumps(summaries, indent=2) + "\n")
    plot_distributions(rows, output / "distributions.png")
    print_table(summary_table(summaries))
    console.print(f"Written to {output}: images.csv, statistics.json, distributions.png", markup=False)


def stats(
    directory: Annotated[Path, typer.Argument(help="Folder of MaSS13K, or of data in its layout.")],
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("statistics"),
    split: Annotated[list[str] | None, typer.Option(help="train, validation or test; by default all.")] = None,
    verify_files: Annotated[bool, typer.Option("--verify", help="Check every file instead.")] = False,
    threads: Annotated[int, typer.Option(help="Images at a time.", min=1)] = os.cpu_count() or 1,
):
    """Measures sizes, complexity and pixel shares of a data set, or checks every file of it."""
    try:
        splits = choose_splits(directory, split or [])
        output.mkdir(parents=True, exist_ok=True)
        (run_verification if verify_files else run_statistics)(splits, output, threads)
    except (OSError, ValueError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("interrupted. What is finished is kept; the same command goes on from there.", code=130)
