"""massformer stats: measure or verify a data set."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import console, error_console, fail, fail_interrupted, print_table, progress_bar
from .options import AllowTruncated, DataArgument, Labels, MaskValues, MaxMegapixels, choose_splits


if TYPE_CHECKING:
    from ..data.layout import Fault, Pair, Split


@contextmanager
def worker_threads(count: int) -> Generator[Callable[[Callable, Iterable[Any]], Iterator[Any]]]:
    """Provide a `map` over threads; items that have not started are dropped when the block ends early."""
    executor = ThreadPoolExecutor(count)
    try:
        yield executor.map
    finally:
        executor.shutdown(cancel_futures=True)


def write_faults(faults: list[Fault], notes: list[Fault], path: Path):
    """Write faults and notes as a CSV file."""
    from ..utils.tables import write_table

    rows = [
        {"severity": severity, "kind": fault.kind, "name": fault.name, "detail": fault.detail}
        for severity, found in (("fault", faults), ("note", notes))
        for fault in found
    ]
    write_table(path, ["severity", "kind", "name", "detail"], rows)


def run_verification(splits: dict[str, Split], labels: list[str], output: Path, threads: int):
    """Check every file and write the findings; end the command with code 1 if there are faults."""
    from ..data.layout import describe_faults
    from ..data.verification import verify

    faults: list[Fault] = []
    notes: list[Fault] = []
    total = sum(len(split.pairs) for split in splits.values()) + 1 + len(splits)
    with worker_threads(threads) as map_function, progress_bar() as progress:
        for report in progress.track(verify(splits, labels, map_function), total=total, description="verifying"):
            faults += report.faults
            notes += report.notes
    write_faults(faults, notes, output / "verification.csv")
    for name, split in splits.items():
        console.print(f"{name}: {len(split.pairs):,} images from {split.image_folder}", markup=False)
    if notes:
        console.print(f"notes: {describe_faults(notes)}", markup=False)
    if faults:
        fail(f"{len(faults)} faults. {describe_faults(faults)}. All are listed in {output / 'verification.csv'}.")
    console.print("No faults.")


def summary_table(summaries: dict[str, dict[str, Any]], labels: list[str]) -> list[list[str]]:
    """Return a table with a column per split and a row per quantity of the paper's Table 1 and Figure 8."""
    columns = list(summaries.values())
    rows = [["", *summaries], ["images", *(f"{summary['images']:,}" for summary in columns)]]
    for title, quantity in (("diagonal", "diagonal"), ("mIPQ", "mipq")):
        rows.append(
            [title, *(f"{summary[f'{quantity}_mean']:.0f} ± {summary[f'{quantity}_std']:.0f}" for summary in columns)]
        )
    rows.append(["classes", *(str(summary["classes"]) for summary in columns)])
    for label in labels:
        shares = (f"{100 * summary['pixel_share'][label]:.2f} %" for summary in columns)
        rows.append([f"{label}, pixels", *shares])
    for label in labels:
        rows.append([f"{label}, IPQ", *(f"{summary['ipq_mean'][label]:.0f}" for summary in columns)])
    return rows


def draw_distributions(rows: list[dict[str, str]], path: Path, labels: list[str]) -> bool:
    """Draw the distributions and return True, or print a note and return False where matplotlib is not installed."""
    from ..data.statistics_plot import plot_distributions
    from ..utils.extras import MissingExtraError

    try:
        plot_distributions(rows, path, labels)
    except MissingExtraError as error:
        error_console.print(f"{path.name} was not drawn. {error}", markup=False)
        return False
    return True


def run_statistics(splits: dict[str, Split], labels: list[str], output: Path, threads: int):
    """Write the table of images, the summaries and the picture."""
    from ..data.layout import check_faults
    from ..data.statistics import StatisticsTable, summarize
    from ..utils.json_files import write_json

    for name, split in splits.items():
        check_faults(name, split)
    table = StatisticsTable(output / "images.csv", labels)
    pairs: list[tuple[str, Pair]] = [(name, pair) for name, split in splits.items() for pair in split.pairs]
    open_pairs = [item for item in pairs if not table.is_current(*item)]
    if len(open_pairs) < len(pairs):
        console.print(
            f"{len(pairs) - len(open_pairs)} of {len(pairs)} images are in {table.path} already.", markup=False
        )
    changed = sum((name, pair.image_id) in table.rows for name, pair in open_pairs)
    if changed:
        console.print(f"{changed} images again: their label maps have changed.")
    with worker_threads(threads) as map_function, progress_bar() as progress:
        for _ in progress.track(
            table.compute(open_pairs, map_function), total=len(open_pairs), description="measuring"
        ):
            pass
    table.drop_missing(splits)
    table.write()
    rows = [table.rows[name, pair.image_id] for name, pair in pairs]
    summaries = {name: summarize((row for row in rows if row["split"] == name), labels) for name in splits}
    if len(splits) > 1:
        summaries["all"] = summarize(rows, labels)
    write_json(summaries, output / "statistics.json", indent=2)
    written = ["images.csv", "statistics.json"]
    if draw_distributions(rows, output / "distributions.png", labels):
        written.append("distributions.png")
    print_table(summary_table(summaries, labels))
    for name in splits:
        absent = [label for label in labels if not summaries[name]["pixel_share"][label]]
        if absent:
            error_console.print(f"Classes without a pixel in {name}: {', '.join(absent)}", markup=False)
    console.print(f"Written to {output}: {', '.join(written)}", markup=False)


def stats(
    directory: DataArgument,
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder for the results.")] = Path("statistics"),
    split: Annotated[list[str] | None, typer.Option(help="train, validation or test. Default: all.")] = None,
    labels: Labels = None,
    mask_values: MaskValues = None,
    verify_files: Annotated[bool, typer.Option("--verify", help="Check every file instead.")] = False,
    threads: Annotated[
        int | None, typer.Option(help="Number of images to process at a time. Default: one per processor.", min=1)
    ] = None,
    max_megapixels: MaxMegapixels = None,
    allow_truncated: AllowTruncated = False,
):
    """Measure sizes, complexity and pixel shares of a data set, or check all its files."""
    from ..data.class_names import data_classes, find_classes, read_categories
    from ..data.mask_values import with_mask_values
    from ..images import accept_photos
    from ..utils.machine import count_processors

    try:
        accept_photos(max_megapixels, allow_truncated)
        splits = choose_splits(directory, split or [])
        # Verification lists label maps that disagree with the names; measuring them makes no sense.
        if verify_files:
            names = find_classes(directory, read_categories(splits), labels).names
        else:
            names = data_classes(directory, splits, labels).names
        splits = with_mask_values(splits, mask_values, names)
        output.mkdir(parents=True, exist_ok=True)
        (run_verification if verify_files else run_statistics)(splits, names, output, threads or count_processors())
    except (OSError, ValueError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail_interrupted()
