"""massformer prepare: write a public data set in the layout and with the seven classes of MaSS13K."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..data.public.names import PublicDataSet
from .console import console, fail, fail_interrupted, progress_bar


def prepare(
    name: Annotated[PublicDataSet, typer.Argument(help="The data set.", show_default=False)],
    source: Annotated[Path, typer.Argument(help="Its folder, as its owners distribute it.", show_default=False)],
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder for the prepared data; created if missing.")],
    val_share: Annotated[
        float | None,
        typer.Option(
            help="Share of the photos for validation. Default: the owners' splits, or 0.1 if there are none."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Number of threads. Default: one per core.", min=1)] = None,
):
    """Prepare a public data set: MaSS13K's layout and seven classes.

    Photos are hard-linked or copied, label maps converted. Finished photos are skipped.
    """
    from ..data.public.job import Preparation
    from ..utils.machine import count_processors

    try:
        preparation = Preparation(name, source, output, val_share)
        jobs = preparation.open_jobs()
        with progress_bar() as progress:
            for _ in progress.track(
                preparation.run(jobs, threads or count_processors()), total=len(jobs), description="preparing"
            ):
                pass
    except (OSError, ValueError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail_interrupted()
    total = len(preparation.jobs)
    console.print(
        f"{len(jobs)} of {total} photos of {preparation.found.table.title} prepared in {output}", markup=False
    )
    if len(jobs) < total:
        console.print("The rest were finished already.")
