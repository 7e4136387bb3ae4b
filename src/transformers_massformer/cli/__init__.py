"""
The `massformer` command: one module per subcommand.

The modules import only typer, rich and the standard library at the top, so that help and completion are immediate.
Functions import what they work with.
"""

import os
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .annotations import annotations
from .compare import compare
from .console import fail, print_any_name
from .contradictions import check_given, remember_given
from .convert import convert
from .demo import demo
from .evaluate import evaluate
from .export import export
from .hq_sam import evaluate_hq_sam, train_hq_sam
from .imports import import_annotations
from .label import label
from .prepare import prepare
from .refine import refine
from .scenes import scenes
from .segment import segment
from .stats import stats
from .train import train


class Group(TyperGroup):
    """All commands; whatever one prints, the names in it do not make it fail."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        print_any_name()
        return super().main(*args, **kwargs)


def limit_threads():
    """Let PyTorch start no more threads than there are processors for it, which containers may limit by time."""
    import torch

    from ..utils.machine import count_processors

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), count_processors()))


class Command(TyperCommand):
    """
    A command that completes the import of the package, which the entry point (`_massformer`) postpones, and refuses
    contradictory options before anything is loaded.
    """

    def invoke(self, ctx: Any) -> Any:
        package = sys.modules[__name__.partition(".")[0]]
        if not hasattr(package, "__version__"):
            package.__spec__.loader.exec_module(package)
        from ..utils.extras import MissingExtraError

        options = {parameter.name or "": parameter.opts[0] for parameter in ctx.command.params}
        try:
            check_given(ctx.command.name or "", remember_given(ctx), options)
        except ValueError as error:
            fail(error)
        limit_threads()
        try:
            return super().invoke(ctx)
        except MissingExtraError as error:
            fail(error)


# Unknown options are passed on to transformers' argument parser.
MORE_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    cls=Group,
    help="Sharp, multi-class segmentation of whole 4K photographs.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command(cls=Command)(segment)
app.command(cls=Command)(demo)
app.command(cls=Command)(convert)
app.command(cls=Command)(export)
app.command(cls=Command, context_settings=MORE_OPTIONS)(train)
app.command(cls=Command)(evaluate)
app.command(cls=Command)(compare)
app.command(cls=Command)(stats)
app.command(cls=Command)(prepare)
app.command(cls=Command)(annotations)
app.command("import", cls=Command)(import_annotations)
app.command(cls=Command)(scenes)
app.command(cls=Command)(label)
app.command(cls=Command)(refine)
app.command(cls=Command, context_settings=MORE_OPTIONS)(train_hq_sam)
app.command(cls=Command)(evaluate_hq_sam)
