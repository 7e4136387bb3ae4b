"""Write MaSS13K, or data in its layout, as Parquet files that contain the images, ready to be pushed to the Hub."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from transformers_massformer.data.layout import find_splits
from transformers_massformer.data.parquet import write_parquet


console = Console(stderr=True, highlight=False, soft_wrap=True)


def main(
    data: Annotated[Path, typer.Argument(help="Folder of MaSS13K or of data in its layout.")],
    output: Annotated[Path, typer.Option(help="Folder for the Parquet files.")],
    images_per_file: Annotated[int, typer.Option(help="Images per Parquet file.", min=1)] = 64,
):
    try:
        splits = find_splits(data)
        total = sum(-(-len(split.pairs) // images_per_file) for split in splits.values())
        files = track(
            write_parquet(splits, output, images_per_file), total=total, description="writing", console=console
        )
        new = [is_new for _, is_new in files]
    except (OSError, ValueError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("interrupted. Finished files are kept; run the same command again to resume.", style="red")
        raise typer.Exit(130) from None
    images = sum(len(split.pairs) for split in splits.values())
    console.print(
        f"{images:,} images in {len(new)} files in {output}, {sum(new)} of them new. Load them with "
        f'load_dataset("{output}"), or push the folder.',
        markup=False,
    )


if __name__ == "__main__":
    typer.run(main)
