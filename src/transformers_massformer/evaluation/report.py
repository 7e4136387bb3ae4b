"""Format scores, and write results as JSON, tables and CSV."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..metrics import Counts, CountSettings, class_scores, score
from ..metrics.tables import SCORES, class_table
from ..utils.files import written_whole
from ..utils.json_files import write_json
from ..utils.tables import write_table
from ..utils.text import markdown_table
from .records import ImageRecord


def results(model: str, identity: Mapping[str, Any], records: Sequence[ImageRecord]) -> dict[str, Any]:
    """
    Return the results of an evaluation, independent of when and where it ran: its settings, the scores, and the counts
    of each image, from which scores can be recomputed and compared.

    Args:
        model (`str`): Name of the model.
        identity (`Mapping[str, Any]`): Settings that identify the evaluation.
        records (`Sequence[ImageRecord]`): Records of all images.
    """
    counts = Counts.stack([record.counts for record in records])
    settings = dict(identity)
    files = settings.pop("model", [])
    return {
        "model": model,
        "files": files,
        **settings,
        "scores": score(counts, CountSettings(**identity["counting"])),
        "images": {record.image_id: record.counts.to_tensor().tolist() for record in records},
        "data": {record.image_id: record.data for record in records},
    }


def latex_escaped(text: str) -> str:
    """Escape LaTeX's special characters."""
    return "".join(f"\\{character}" if character in "&%$#_{}" else character for character in text)


def latex_class_table(title: str, labels: Sequence[str], scores: Mapping[str, Any]) -> str:
    """Return the class table in LaTeX (package booktabs), with a two-line header as in the paper."""
    _, row = class_table(title, labels, scores)
    heads = " & ".join(
        f"\\multicolumn{{3}}{{c}}{{{latex_escaped(head)}}}" for head in ["Mean", *map(str.capitalize, labels)]
    )
    names = " & ".join([" & ".join(SCORES.values())] * (len(labels) + 1))
    return "\n".join(
        [
            f"\\begin{{tabular}}{{l*{{{3 * (len(labels) + 1)}}}{{r}}}}",
            "\\toprule",
            f"Method & {heads} \\\\",
            f" & {names} \\\\",
            "\\midrule",
            " & ".join(map(latex_escaped, row)) + " \\\\",
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    )


def image_rows(records: Iterable[ImageRecord], labels: Sequence[str]) -> list[dict[str, str]]:
    """Return one row of scores per image; scores of absent classes are empty."""
    rows = []
    for record in records:
        scores = class_scores(record.counts)
        row = {"image_id": record.image_id, "width": str(record.width), "height": str(record.height)}
        for name in SCORES:
            row[f"mean_{name}"] = f"{getattr(scores, name).nanmean().item():.6f}"
        correct, labelled = record.counts.intersection.sum().item(), record.counts.label_area.sum().item()
        row["accuracy"] = f"{correct / labelled:.6f}" if labelled else ""
        for name in SCORES:
            for label, value in zip(labels, getattr(scores, name).tolist(), strict=True):
                row[f"{name}_{label}"] = "" if math.isnan(value) else f"{value:.6f}"
        rows.append(row)
    return rows


def write_image_csv(records: Sequence[ImageRecord], labels: Sequence[str], path: Path):
    """Write the scores of each image to a CSV file."""
    rows = image_rows(records, labels)
    write_table(path, list(rows[0]), rows)


def write_report(title: str, result: Mapping[str, Any], records: Sequence[ImageRecord], folder: Path):
    """
    Write results.json, classes.md, classes.tex and images.csv.

    Args:
        title (`str`): Name of the model in tables.
        result (`Mapping[str, Any]`): Result of [`results`].
        records (`Sequence[ImageRecord]`): Records of all images.
        folder (`Path`): Output folder.
    """
    labels, scores = result["labels"], result["scores"]
    write_json(result, folder / "results.json")
    for name, text in (
        ("classes.md", markdown_table(class_table(title, labels, scores))),
        ("classes.tex", latex_class_table(title, labels, scores)),
    ):
        with written_whole(folder / name) as partial:
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    write_image_csv(records, labels, folder / "images.csv")


def worst_images(records: Iterable[ImageRecord], count: int) -> list[str]:
    """Return the names of the images with the lowest mean Boundary IoU, in ascending order."""

    def mean(record: ImageRecord) -> float:
        value = class_scores(record.counts).boundary_iou.nanmean().item()
        return math.inf if math.isnan(value) else value

    return [record.image_id for record in sorted(records, key=mean)[:count]]
