"""The `massformer` command: one module per subcommand."""

import typer

from .annotations import annotations
from .compare import compare
from .convert import convert
from .demo import demo
from .evaluate import evaluate
from .export import export
from .hq_sam import evaluate_hq_sam, train_hq_sam
from .label import label
from .refine import refine
from .scenes import scenes
from .segment import segment
from .stats import stats
from .train import train


# Options that a command passes on.
MORE_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    help="Sharp, multi-class segmentation of whole 4K photographs.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(segment)
app.command()(demo)
app.command()(convert)
app.command()(export)
app.command(context_settings=MORE_OPTIONS)(train)
app.command()(evaluate)
app.command()(compare)
app.command()(stats)
app.command()(annotations)
app.command()(scenes)
app.command()(label)
app.command()(refine)
app.command(context_settings=MORE_OPTIONS)(train_hq_sam)
app.command()(evaluate_hq_sam)
