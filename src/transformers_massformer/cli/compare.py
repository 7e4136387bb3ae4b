"""massformer compare: several results beside each other."""

from pathlib import Path
from typing import Annotated

import typer

from ..evaluation.comparison import compare as compare_results
from ..evaluation.comparison import comparison_table, read_result
from ..evaluation.report import write_json
from ..utils.files import written_whole
from ..utils.text import markdown_table
from .console import console, fail, print_table


def unique_names(paths: list[Path]) -> list[str]:
    """What tables call the results: their folders, and more of the path where these are the same."""
    folders = [path.parent if path.suffix == ".json" else path for path in map(Path.absolute, paths)]
    names = [folder.name for folder in folders]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def compare(
    results: Annotated[
        list[Path], typer.Argument(help="Files results.json of `massformer evaluate`, or their folders.")
    ],
    output: Annotated[Path | None, typer.Option(help="Write the table here: .md or .json.")] = None,
    samples: Annotated[int, typer.Option(help="Bootstrap samples.", min=1)] = 2000,
    confidence: Annotated[float, typer.Option(help="What share of the samples an interval holds.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
):
    """Shows scores, differences to the first result, and bootstrap confidence intervals over images."""
    try:
        if not 0 < confidence < 1:
            raise ValueError(f"The confidence must lie between 0 and 1, got {confidence}.")
        if output is not None and output.suffix not in (".md", ".json"):
            raise ValueError(f"{output} is neither .md nor .json.")
        names = unique_names(results)
        if len(set(names)) < len(names):
            raise ValueError(f"A result is named twice: {', '.join(names)}.")
        rows = compare_results(
            {name: read_result(path) for name, path in zip(names, results, strict=True)}, samples, confidence, seed
        )
        table = comparison_table(rows)
        if output is not None and output.suffix == ".json":
            write_json(rows, output)
        elif output is not None:
            with written_whole(output) as partial:
                partial.write_text(markdown_table(table))
    except (OSError, ValueError) as error:
        fail(error)
    print_table(table)
    console.print(
        f"Intervals hold {100 * confidence:g} % of {samples} samples of images, drawn with replacement, the same for "
        "all; differences are to the first; * marks those whose interval has no zero."
    )
