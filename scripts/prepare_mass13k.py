"""Write MaSS13K, or data in its layout, as Parquet files that contain the images, ready to be pushed to the Hub."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from transformers_massformer.cli.console import error_console, fail, fail_interrupted
from transformers_massformer.data.layout import find_splits
from transformers_massformer.data.parquet import write_parquet


def main(
    data: Annotated[Path, typer.Argument(help="Folder of MaSS13K or of data in its layout.")],
    output: Annotated[Path, typer.Option(help="Folder for the Parquet files.")],
    images_per_file: Annotated[int, typer.Option(help="Images per Parquet file.", min=1)] = 64,
):
    try:
        splits = find_splits(data)
        total = sum(-(-len(split.pairs) // images_per_file) for split in splits.values())
        files = write_parquet(splits, output, images_per_file)
        new = [is_new for _, is_new in track(files, "writing", total, console=error_console)]
    except (OSError, ValueError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail_interrupted("Finished files are kept; run the same command again to resume.")
    images = sum(len(split.pairs) for split in splits.values())
    error_console.print(
        f"{images:,} images in {len(new)} files in {output}, {sum(new)} of them new. Load them with "
        f'load_dataset("{output}"), or push the folder.',
        markup=False,
    )


if __name__ == "__main__":
    typer.run(main)
