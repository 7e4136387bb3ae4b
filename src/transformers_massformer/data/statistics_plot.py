"""Plot the statistics of a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..utils.extras import require
from .layout import LABELS
from .statistics import summarize


if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_pixel_shares(axes: "Axes", rows: list[dict[str, str]], labels: Sequence[str]):
    """Plot the share of each class among all labelled pixels (paper, Figure 8)."""
    shares = summarize(rows, labels)["pixel_share"]
    bars = axes.bar(list(labels), [100 * shares[label] for label in labels])
    axes.bar_label(bars, fmt="%.1f")
    axes.tick_params(axis="x", rotation=30)
    axes.set(title="Pixels of each class", ylabel="% of labelled pixels")


def plot_histogram(axes: "Axes", values: np.ndarray, title: str, label: str, logarithmic: bool = False):
    """Plot a histogram with its mean; values that are not finite are left out."""
    values = values[np.isfinite(values)]
    if logarithmic:
        values = values[values > 0]
        axes.set_xscale("log")
    if len(values):
        low, high = values.min(), values.max()
        if low == high:
            low, high = 0.9 * low, 1.1 * high
        bins = np.geomspace(low, high, 41) if logarithmic else np.linspace(low, high, 41)
        axes.hist(values, bins=bins.tolist())
        axes.axvline(values.mean(), color="black", linestyle="--", label=f"mean {values.mean():.0f}")
        axes.legend()
    axes.set(title=title, xlabel=label, ylabel="images")


def plot_quotients(axes: "Axes", rows: list[dict[str, str]], labels: Sequence[str]):
    """Plot the complexity of each class over the images that show it."""
    quotients = [[float(row[f"ipq_{label}"]) for row in rows if row[f"ipq_{label}"]] or [np.nan] for label in labels]
    axes.boxplot(quotients, tick_labels=list(labels), whis=(5, 95), showfliers=False)
    axes.set_yscale("log")
    axes.tick_params(axis="x", rotation=30)
    axes.set(title="Complexity of each class", ylabel="L² / (4 π A), 5 to 95 % of images")


def plot_distributions(rows: list[dict[str, str]], path: str | Path, labels: Sequence[str] = LABELS):
    """
    Plot pixel shares, complexity and sizes of a data set.

    Args:
        rows (`list[dict[str, str]]`): Rows of the table of images.
        path (`str` or `Path`): The PNG to write.
        labels (`Sequence[str]`, *optional*): Names of the classes; by default, MaSS13K's.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "stats", "A plot of statistics").Figure(
        figsize=(12, 8), layout="constrained"
    )
    shares, mipq, quotients, diagonals = figure.subplots(2, 2).flat
    plot_pixel_shares(shares, rows, labels)
    plot_histogram(mipq, np.array([float(row["mipq"]) for row in rows]), "Complexity of images", "mIPQ", True)
    plot_quotients(quotients, rows, labels)
    plot_histogram(
        diagonals, np.array([float(row["diagonal"]) for row in rows]), "Sizes of images", "diagonal, pixels"
    )
    figure.savefig(path, dpi=120, metadata={"Software": None})
