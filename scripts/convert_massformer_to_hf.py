"""Convert the authors' MaSSFormer checkpoints to transformers folders; `massformer convert` as a script."""

import typer

from transformers_massformer.cli.convert import convert


if __name__ == "__main__":
    typer.run(convert)
