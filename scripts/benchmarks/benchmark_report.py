"""Turn the figures of the benchmarks into tables and render the document; measures nothing."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from benchmark_worker import OFFSET_PIXELS, TENSORS

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.metrics.tables import format_score
from transformers_massformer.utils.text import format_bytes, markdown_table


BASELINE, BASELINE_TITLE = "mask2former-r50", "Mask2Former-R50"
NOT_MEASURED = "not measured"
# Every table shows both, measured or not.
DEVICES = {"cpu": "CPU", "cuda": "CUDA"}
MODEL_TITLES = {BASELINE: BASELINE_TITLE, "maskformer-r50": "MaskFormer-R50", "segformer-b2": "SegFormer-B2"}
SECTION_TITLES = {
    "inference": "inference",
    "training": "training step",
    "deformable": "deformable convolutions",
    "accuracy": "their accuracy",
    "shares": "their share",
    "flops": "operations",
    "ceilings": "the machine's peak rates",
    "metrics": "metrics",
    "decoders": "decoders",
    "formulations": "formulations",
    "new_classes": "new classes",
    "mattes": "mattes",
    "onnx": "ONNX",
}
GRAPH_TITLES = {
    "PyTorch": "PyTorch, float32",
    "fp32": "ONNX, float32",
    "plain": "ONNX, float32, plain operators",
    "fp16": "ONNX, float16",
}
METRIC_TITLES = {
    "counts": "IoU, Boundary IoU and BF1 by `transformers_massformer.metrics`",
    "literal": "IoU, Boundary IoU and BF1 by erosions (OpenCV) and distance transforms (scipy)",
    "iou-histograms": "IoU alone by histograms, as in `evaluate`'s mean_iou",
}
SETTING_TITLES = {
    "tool": "pseudo-labels as the tool made them",
    "merged": "pseudo-labels where the label map says others",
    "alone": "without accurate labels",
    "unweighted": "without re-weighting",
    "reweighted": "with re-weighting (Eq. 7)",
}
SCORES = {"mIoU": "mean_iou", "BIoU": "mean_boundary_iou", "BF1": "mean_bf1"}
DECODER_SCORES = {**SCORES, "accuracy": "overall_accuracy"}
FORMULATION_SCORES = {
    **SCORES,
    "PQ^St": "mean_pq_st",
    "mIoU, general": "general_mean_iou",
    "PQ^St, general": "general_mean_pq_st",
}

# Largest relative errors of a correct engine, by dtype.
ERROR_BOUNDS = {"float32": 1e-5, "float16": 1.5e-3, "bfloat16": 1e-2}

# {device: {section: {"source": {...}, "rows": [{"key": {...}, "status": str, "values": {name: [number per round]}}]}}}
Results = dict[str, dict[str, Any]]
Row = dict[str, Any]


def section_rows(results: Results, device: str, section: str) -> list[Row]:
    """Return the rows of a section, none if the device did not measure it."""
    return results.get(device, {}).get(section, {}).get("rows", [])


def find_row(rows: list[Row], key: dict[str, Any]) -> Row | None:
    """Return the row with this key, if there is one."""
    return next((row for row in rows if row["key"] == key), None)


def distinct(items: Iterable[Any]) -> list[Any]:
    """Drop repetitions and keep the order; the items need no hash."""
    listed = list(items)
    return [item for index, item in enumerate(listed) if item not in listed[:index]]


def all_keys(results: Results, section: str) -> list[dict[str, Any]]:
    """Return the keys that any device measured."""
    return distinct(row["key"] for device in DEVICES for row in section_rows(results, device, section))


def value(row: Row | None, name: str) -> float | None:
    """Compute the median over the rounds; `None` if nothing was measured or a round failed."""
    if row is None or row["status"] != "ok" or not row["values"].get(name):
        return None
    return statistics.median(row["values"][name])


def ratio(number: float | None, reference: float | None) -> float | None:
    """Divide two figures; `None` if one is missing or the reference is 0."""
    return None if number is None or reference is None or reference == 0 else number / reference


def log_log_slope(pixels: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Fit the exponent p of the power law seconds ~ pixels ** p; `None` for fewer than two sizes."""
    if len(set(pixels)) < 2:
        return None
    return statistics.linear_regression([math.log(x) for x in pixels], [math.log(y) for y in seconds]).slope


def seconds_text(seconds: float) -> str:
    """Format a duration in milliseconds or seconds."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.1f} s"


def ratio_text(number: float | None, reference: float | None) -> str:
    """Format the ratio of two figures; empty if one is missing."""
    quotient = ratio(number, reference)
    return "" if quotient is None else f"{quotient:.2f}"


def size_text(size: Sequence[int]) -> str:
    """Format a size, e.g. "3072 x 4096"."""
    return f"{size[0]} x {size[1]}"


def model_title(model: str) -> str:
    """Return a model's name for tables."""
    return MODEL_TITLES.get(model, model.replace("massformer-", "MaSSFormer "))


def title(contestant: dict[str, Any]) -> str:
    """Describe a contestant, e.g. "MaSSFormer r50, fused, engine torchvision, bfloat16"."""
    words = [
        model_title(contestant["model"]),
        "fused" if contestant["fuse"] else "",
        f"engine {contestant['engine']}" if contestant["engine"] else "",
        contestant["dtype"] if contestant["dtype"] != "float32" else "",
        "compiled" if contestant["compile"] else "",
    ]
    return ", ".join(filter(None, words))


def key_text(key: dict[str, Any]) -> str:
    """Describe the subject of a measurement in one line."""
    texts = {"contestant": title, "size": size_text}
    return ", ".join(texts.get(name, str)(part) for name, part in key.items())


def number_cell(number: float | None, text: Callable[[float], str], row: Row | None) -> str:
    """Format a figure of a row, or say why it is missing."""
    if number is not None:
        return text(number)
    return NOT_MEASURED if row is None or row["status"] == "ok" else row["status"]


def cell(row: Row | None, name: str, text: Callable[[float], str]) -> str:
    """Format the median of a value, or say why it is missing."""
    return number_cell(value(row, name), text, row)


def relative_cells(row: Row | None, reference: Row | None) -> list[str]:
    """Format time and peak memory, each followed by its ratio to the reference's."""
    cells = []
    for name, text in (("seconds", seconds_text), ("peak_bytes", format_bytes)):
        cells += [cell(row, name, text), ratio_text(value(row, name), value(reference, name))]
    return cells


def spread_cell(row: Row, name: str) -> str:
    """Format the mean score and, over several seeds, its standard deviation."""
    values = row["values"].get(name)
    if not values:
        return "-"
    numbers = [statistics.mean(values), *([statistics.stdev(values)] if len(values) > 1 else [])]
    return " ± ".join(format_score("bf1" if name.endswith("bf1") else name, number) for number in numbers)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table; empty without rows."""
    return markdown_table([header, *rows]).strip() if rows else ""


def device_table(
    results: Results,
    section: str,
    columns: Sequence[str],
    lines: Iterable[tuple[str, Any]],
    cells: Callable[[list[Row], Any], list[str]],
    corner: str = "model",
) -> str:
    """
    Format a table with the devices side by side: `lines` are the title and subject of each line, and `cells` formats
    the cells of a subject from one device's rows of the section. `{}` in the titles of columns stands for the device.
    """
    header = [corner, *(column.format(DEVICES[device]) for device in DEVICES for column in columns)]
    rows = {device: section_rows(results, device, section) for device in DEVICES}
    return table(header, [[name, *(x for d in DEVICES for x in cells(rows[d], subject))] for name, subject in lines])


def size_table(
    keys: list[dict[str, Any]], part: str, text: Callable[[Any], str], cell_of: Callable[[dict[str, Any]], str]
) -> str:
    """Format a table with a line for each value of a part of the keys and a column for each image size."""
    sizes = distinct(key["size"] for key in keys)
    subjects = distinct(key[part] for key in keys)
    lines = [[text(subject), *(cell_of({part: subject, "size": size}) for size in sizes)] for subject in subjects]
    return table(["model", *map(size_text, sizes)], lines)


def comparison_cells(rows: list[Row], key: dict[str, Any]) -> list[str]:
    """Format time, peak memory and their ratios to the baseline (same dtype, size and batch, not compiled)."""
    baseline = {**key["contestant"], "model": BASELINE, "fuse": False, "engine": None, "compile": False}
    return relative_cells(find_row(rows, key), find_row(rows, {**key, "contestant": baseline}))


def comparison_tables(results: Results, section: str) -> str:
    """Format one table per size (and batch size)."""
    keys, parts = all_keys(results, section), []
    for conditions in distinct({**key, "contestant": None} for key in keys):
        batch = f", batch of {conditions['batch_size']}" if "batch_size" in conditions else ""
        lines = [(title(key["contestant"]), key) for key in keys if {**key, "contestant": None} == conditions]
        columns = ("{} time", "ratio", "peak memory", "ratio")
        parts.append(f"### {size_text(conditions['size'])}{batch}")
        parts.append(device_table(results, section, columns, lines, comparison_cells))
    return "\n\n".join(parts)


def deformable_table(results: Results, device: str) -> str:
    """Format each engine's time for each deformable convolution, and its speed relative to torchvision's."""
    rows = section_rows(results, device, "deformable")
    engines = distinct(row["key"]["engine"] for row in rows)
    header, lines = ["layer", "step", "image", "dtype"], []
    for engine in engines:
        header += [engine] if engine == "torchvision" else [engine, "times faster"]
    for conditions in distinct({**row["key"], "engine": None} for row in rows):
        reference = value(find_row(rows, {**conditions, "engine": "torchvision"}), "seconds")
        cells = [conditions["layer"], conditions["step"], size_text(conditions["size"]), conditions["dtype"]]
        for engine in engines:
            row = find_row(rows, {**conditions, "engine": engine})
            cells.append(cell(row, "seconds", seconds_text))
            if engine != "torchvision":
                cells.append(ratio_text(reference, value(row, "seconds")))
        lines.append(cells)
    return table(header, lines)


def is_accurate(row: Row) -> bool:
    """Return whether all errors of an engine were measured and are within the bound; NaN is not."""
    errors = [value(row, name) for name in TENSORS]
    return all(error is not None and error <= ERROR_BOUNDS[row["key"]["dtype"]] for error in errors)


def accuracy_table(results: Results, device: str) -> str:
    """Format the largest relative errors of each engine over all cases, and in how many they are within the bound."""
    rows, lines = section_rows(results, device, "accuracy"), []
    for engine, dtype in distinct((row["key"]["engine"], row["key"]["dtype"]) for row in rows):
        own = [row for row in rows if (row["key"]["engine"], row["key"]["dtype"]) == (engine, dtype)]
        errors = {name: [x for row in own if (x := value(row, name)) is not None] for name in TENSORS}
        worst = [f"{max(found):.1e}" if found else NOT_MEASURED for found in errors.values()]
        within = f"{sum(map(is_accurate, own))} of {len(own)}"
        lines.append([engine, dtype, *worst, f"{ERROR_BOUNDS[dtype]:.1e}", within])
    return table(["engine", "dtype", *TENSORS, "bound", "cases within"], lines)


def share_table(results: Results, device: str) -> str:
    """Format the share of all deformable convolutions in a forward pass, by engine."""
    lines = []
    for row in section_rows(results, device, "shares"):
        key, share = row["key"], ratio(value(row, "deformable_seconds"), value(row, "seconds"))
        times = [cell(row, name, seconds_text) for name in ("seconds", "deformable_seconds")]
        percent = number_cell(share, "{:.0%}".format, row)
        lines.append([key["engine"], key["dtype"], size_text(key["size"]), *times, percent])
    return table(["engine", "dtype", "image", "forward pass", "deformable convolutions", "share"], lines)


def scaling_cells(rows: list[Row], contestant: dict[str, Any]) -> list[str]:
    """Format the exponent over all sizes, and the ratio of the times at 4096 x 4096 and 2048 x 2048."""
    own = [row for row in rows if row["key"]["contestant"] == contestant]
    found = {tuple(row["key"]["size"]): value(row, "seconds") for row in own}
    measured = {size: seconds for size, seconds in found.items() if seconds is not None}
    slope = log_log_slope([math.prod(size) for size in measured], list(measured.values()))
    times = ratio(measured.get((4096, 4096)), measured.get((2048, 2048)))
    return [number_cell(number, "{:.2f}".format, None) for number in (slope, times)]


def scaling_table(results: Results) -> str:
    """Format how each model's time grows with the number of pixels."""
    lines = [(title(each), each) for each in distinct(key["contestant"] for key in all_keys(results, "inference"))]
    return device_table(results, "inference", ("{} exponent", "4096 x 4096 : 2048 x 2048"), lines, scaling_cells)


def achieved_table(results: Results, device: str) -> str:
    """Format each contestant's operations per second, and their share of the matrix product's rate."""
    inference, flops, ceilings = (section_rows(results, device, x) for x in ("inference", "flops", "ceilings"))

    def achieved(key: dict[str, Any]) -> str:
        row = find_row(inference, key)
        seconds = value(row, "seconds")
        if seconds is None:
            return cell(row, "seconds", seconds_text)
        counted = find_row(flops, {"model": key["contestant"]["model"], "size": key["size"]})
        per_second = ratio(value(counted, "flops"), seconds)
        share = ratio(per_second, value(find_row(ceilings, {"ceiling": key["contestant"]["dtype"]}), "per_second"))
        percent = "" if share is None else f" ({share:.0%})"
        return number_cell(per_second, lambda number: f"{number / 1e9:.3g}{percent}", counted)

    return size_table([row["key"] for row in inference], "contestant", title, achieved)


def operations_table(results: Results) -> str:
    """Format the operations of one forward pass; they are the same on every device."""
    rows = [row for device in DEVICES for row in section_rows(results, device, "flops")]

    def operations(key: dict[str, Any]) -> str:
        return cell(find_row(rows, key), "flops", lambda count: f"{count / 1e12:.3g}")

    return size_table(all_keys(results, "flops"), "model", model_title, operations)


def ceiling_table(results: Results) -> str:
    """Format the peak rates of the machine."""

    def rate(rows: list[Row], key: dict[str, Any]) -> list[str]:
        return [cell(find_row(rows, key), "per_second", lambda number: f"{number / 1e9:.4g}")]

    names = {"copy": "copy, GB/s read and written"}
    keys = all_keys(results, "ceilings")
    lines = [(names.get(key["ceiling"], f"matrix product in {key['ceiling']}, GFLOP/s"), key) for key in keys]
    return device_table(results, "ceilings", ["{}"], lines, rate, corner="")


def metric_table(results: Results) -> str:
    """Format time and memory of the metrics' implementations, relative to this package's."""
    rows = section_rows(results, "cpu", "metrics")
    if not rows:
        return ""
    reference = find_row(rows, {**rows[0]["key"], "method": "counts"})
    lines = []
    for row in rows:
        _, times, memory, _ = relative_cells(row, reference)
        lines.append([METRIC_TITLES[row["key"]["method"]], cell(row, "seconds", "{:.3f} s".format), times, memory])
    header = [f"a pair of {size_text(rows[0]['key']['size'])} pixels", "CPU time", "times the first", "peak memory"]
    return table(header, lines)


def decoder_table(rows: list[Row], scores: dict[str, str]) -> str:
    """Format size, training steps, scores and costs of models that were trained alike."""
    lines = []
    for row in rows:
        size = f"{row['values']['parameters'][0] / 1e6:.2f} M"
        costs = [cell(row, name, seconds_text) for name in ("step_seconds", "seconds")]
        costs.append(format_bytes(max(row["values"]["peak_bytes"])))
        about = [row["key"]["decoder"], size, str(row["key"]["steps"]), str(len(row["values"]["seconds"]))]
        lines.append([*about, *(spread_cell(row, name) for name in scores.values()), *costs])
    header = ["model", "parameters", "steps", "seeds", *scores, "a step alone", "training", "peak memory"]
    return table(header, lines)


def new_class_table(rows: list[Row], scores: dict[str, str]) -> str:
    """Format the scores of a class learned from pseudo-labels, after those of the pseudo-labels."""
    by_setting = {row["key"]["setting"]: row for row in rows}
    lines = [
        [text, *(spread_cell(by_setting[setting], name) for name in scores.values())]
        for setting, text in SETTING_TITLES.items()
        if setting in by_setting
    ]
    return table(["bicycle", *scores], lines)


# Sections of trained models, their tables and the scores in these.
TRAINED = {
    "decoders": (decoder_table, DECODER_SCORES),
    "formulations": (decoder_table, FORMULATION_SCORES),
    "new_classes": (new_class_table, {"IoU": "iou", "BIoU": "boundary_iou", "BF1": "bf1"}),
}


def trained_entries(results: Results, device: str, section: str) -> list[dict[str, Any]]:
    """Return the training conditions of models that were trained alike, and their table, for each kind of data."""
    rows, entries = section_rows(results, device, section), []
    table_of, scores = TRAINED[section]
    for domain in distinct(row["key"].get("domain", "scenes") for row in rows):
        own = [row for row in rows if row["key"].get("domain", "scenes") == domain]
        seeds = max(len(values) for row in own for values in row["values"].values())
        entries.append(
            {"scales": None, **own[-1]["key"], "domain": domain, "seeds": seeds, "table": table_of(own, scores)}
        )
    return entries


def matte_table(results: Results, device: str) -> str:
    """Format the errors of mattes against the exact alpha."""
    lines = []
    for row in section_rows(results, device, "mattes"):
        subject = [str(row["key"][name]) for name in ("class", "matte", "scenes")]
        errors = [cell(row, name, "{:.2f}".format) for name in ("sad", "mse", "gradient")]
        refinement = cell(row, "seconds", "{:.1f} s".format) if value(row, "seconds") else "-"
        lines.append([*subject, *errors, refinement])
    header = ["class", "matte", "scenes", "SAD / 10^3", "MSE x 10^3", "gradient / 10^3", "refinement"]
    return table(header, lines)


def onnx_table(results: Results, device: str) -> str:
    """Format time and memory of exported models, relative to PyTorch's."""
    rows = section_rows(results, device, "onnx")
    lines = []
    for row in rows:
        key, eager = row["key"], find_row(rows, {**row["key"], "engine": "PyTorch"})
        lines.append([key["model"], size_text(key["size"]), GRAPH_TITLES[key["engine"]], *relative_cells(row, eager)])
    return table(["model", "pixels", "engine", "time", "x PyTorch", "peak memory", "x PyTorch"], lines)


def sources(results: Results) -> list[dict[str, Any]]:
    """Return the machines, versions, dates and commands of the figures."""
    found = []
    for device, name in DEVICES.items():
        measured = results.get(device, {})
        for source in distinct(section["source"] for section in measured.values()):
            titles = [SECTION_TITLES[key] for key in SECTION_TITLES if measured.get(key, {}).get("source") == source]
            versions = ", ".join(f"{package} {version}" for package, version in source["versions"].items())
            found.append({**source, "device": name, "sections": ", ".join(titles), "versions": versions})
    return found


def failures(results: Results) -> list[dict[str, str]]:
    """Return the failed measurements and their messages."""
    return [
        {"measurement": f"{name}, {section_title}, {key_text(row['key'])}", "detail": row["detail"]}
        for device, name in DEVICES.items()
        for section, section_title in SECTION_TITLES.items()
        for row in section_rows(results, device, section)
        if row["status"] == "failed"
    ]


def by_device(make: Callable[..., Any], results: Results, *arguments: Any) -> dict[str, Any]:
    """Make a table per device, by the device's name."""
    return {name: make(results, device, *arguments) for device, name in DEVICES.items()}


def render_template(name: str, **values: Any) -> str:
    """Fill in a Markdown template of this folder."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(values).strip() + "\n"


def render(results: Results, results_name: str) -> str:
    """Render the document in Markdown; `results_name` names the file of the figures."""
    return render_template(
        "benchmarks.md.jinja",
        results_name=results_name,
        sources=sources(results),
        unmeasured=[name for device, name in DEVICES.items() if not results.get(device)],
        baseline=BASELINE_TITLE,
        num_labels=len(MASS13K_LABELS),
        offset_pixels=OFFSET_PIXELS,
        inference=comparison_tables(results, "inference"),
        training=comparison_tables(results, "training"),
        deformable=by_device(deformable_table, results),
        accuracy=by_device(accuracy_table, results),
        shares=by_device(share_table, results),
        scaling=scaling_table(results),
        operations=operations_table(results),
        achieved=by_device(achieved_table, results),
        ceilings=ceiling_table(results),
        metrics=metric_table(results),
        **{section: by_device(trained_entries, results, section) for section in TRAINED},
        mattes=by_device(matte_table, results),
        onnx=by_device(onnx_table, results),
        failures=failures(results),
    )
