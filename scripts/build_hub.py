"""Writes the folders under hub/ from the package, or checks that they are current."""

import filecmp
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from transformers.utils import logging

from transformers_massformer.conversion import SEMASK_VARIANTS, VARIANTS
from transformers_massformer.hub_data_set import write_data_set_folder
from transformers_massformer.hub_folders import copy_remote_code, write_model_folder
from transformers_massformer.hub_metric import NAME as METRIC
from transformers_massformer.hub_metric import write_metric_folder
from transformers_massformer.hub_semask import folder_name, write_semask_folder
from transformers_massformer.hub_space import NAME as SPACE
from transformers_massformer.hub_space import write_space_folder


HUB = Path(__file__).parent.parent / "hub"


def build(output: Path) -> list[Path]:
    """Writes every folder and returns the files written."""
    for variant in VARIANTS:
        write_model_folder(variant, output / f"massformer-{variant}")
    for variant in SEMASK_VARIANTS:
        write_semask_folder(variant, output / folder_name(variant))
    # Weights and card are `scripts/train_demo.py`'s.
    copy_remote_code(output / "massformer-demo")
    write_data_set_folder(output / "mass13k")
    write_metric_folder(output / METRIC)
    write_space_folder(output / SPACE)
    return sorted(path for path in output.rglob("*") if path.is_file())


def outdated_files(hub: Path) -> list[Path]:
    """Files under hub/ that differ from what would be written now."""
    with tempfile.TemporaryDirectory() as folder:
        built = build(Path(folder))
        return [
            path.relative_to(folder)
            for path in built
            if not (hub / path.relative_to(folder)).is_file()
            or not filecmp.cmp(path, hub / path.relative_to(folder), shallow=False)
        ]


def main(
    output: Annotated[Path, typer.Option(help="Where to write.")] = HUB,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file is not current.")] = False,
):
    logging.disable_progress_bar()
    if not check:
        build(output)
        return
    outdated = outdated_files(output)
    for path in outdated:
        typer.echo(f"{output / path} is not current; run scripts/build_hub.py", err=True)
    if outdated:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
