"""massformer compare: compare evaluation results."""

from pathlib import Path
from typing import Annotated

import typer

from .console import console, fail, print_table


def unique_names(paths: list[Path]) -> list[str]:
    """Name results after their folders, or by their paths if folders share a name."""
    folders = [path.parent if path.suffix == ".json" else path for path in map(Path.absolute, paths)]
    names = [folder.name for folder in folders]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def compare(
    results: Annotated[
        list[Path], typer.Argument(help="Files results.json of `massformer evaluate`, or their folders.")
    ],
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the table to this .md or .json file.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Number of bootstrap samples.", min=1)] = 2000,
    confidence: Annotated[float, typer.Option(help="Confidence level of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Random seed of the samples.")] = 0,
):
    """Show scores, differences to the first result, and bootstrap confidence intervals over images."""
    from ..evaluation.comparison import compare as compare_results
    from ..evaluation.comparison import comparison_table, read_result
    from ..utils.files import written_whole
    from ..utils.json_files import write_json
    from ..utils.text import markdown_table

    try:
        if not 0 < confidence < 1:
            raise ValueError(f"--confidence must lie between 0 and 1, got {confidence}.")
        if output is not None and output.suffix not in (".md", ".json"):
            raise ValueError(f"--output must end in .md or .json, got {output}.")
        names = unique_names(results)
        if len(set(names)) < len(names):
            raise ValueError(f"A result is given twice: {', '.join(names)}.")
        rows = compare_results(
            {name: read_result(path) for name, path in zip(names, results, strict=True)}, samples, confidence, seed
        )
        table = comparison_table(rows)
        if output is not None and output.suffix == ".json":
            write_json(rows, output)
        elif output is not None:
            with written_whole(output) as partial:
                partial.write_text(markdown_table(table), encoding="utf-8", errors="backslashreplace")
    except (OSError, ValueError) as error:
        fail(error)
    print_table(table)
    console.print(
        f"Intervals hold {100 * confidence:g} % of {samples} bootstrap samples of the images, the same for all. "
        "Differences are to the first result; * marks intervals that exclude zero."
    )
