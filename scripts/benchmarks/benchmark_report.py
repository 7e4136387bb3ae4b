"""The results of `benchmark_model.py` and the document made of them; nothing is measured here."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmark_worker import OFFSET_PIXELS

from transformers_massformer import MASS13K_LABELS


BASELINE, BASELINE_TITLE = "mask2former-r50", "Mask2Former-R50"
NOT_MEASURED = "not measured"
# Both are in every table, measured or not.
NAMES = {"cpu": "CPU", "cuda": "CUDA"}
MODEL_TITLES = {
    BASELINE: BASELINE_TITLE,
    "maskformer-r50": "MaskFormer-R50",
    "segformer-b2": "SegFormer-B2",
}
SECTION_TITLES = {
    "inference": "inference",
    "training": "training step",
    "deformable": "deformable convolutions",
    "shares": "their share",
    "flops": "operations",
    "ceilings": "the machine's best",
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
    "iou-histograms": "IoU alone by histograms, as `evaluate`'s mean_iou",
}

# {device: {section: {"source": {...}, "rows": [{"key": {...}, "status": str, "values": {name: [number per round]}}]}}}
Results = dict[str, dict[str, Any]]
Row = dict[str, Any]


def add_measurement(results: Results, device: str, section: str, source: dict[str, Any], measurement: Row):
    """
    Adds what one round measured. The first measurement of a run replaces what earlier runs on this kind of device left
    of the section, so that figures which are compared come from one run.
    """
    sections = results.setdefault(device, {})
    if sections.get(section, {}).get("source") != source:
        sections[section] = {"source": source, "rows": []}
    rows = sections[section]["rows"]
    row = find_row(rows, measurement["key"])
    if row is None:
        row = {"key": measurement["key"], "values": {}}
        rows.append(row)
    row["status"] = measurement["status"]
    if "detail" in measurement:
        row["detail"] = measurement["detail"]
    for name, value in measurement.get("values", {}).items():
        row["values"].setdefault(name, []).append(value)


def section_rows(results: Results, device: str, section: str) -> list[Row]:
    return results.get(device, {}).get(section, {}).get("rows", [])


def find_row(rows: list[Row], key: dict[str, Any]) -> Row | None:
    return next((row for row in rows if row["key"] == key), None)


def value(row: Row | None, name: str) -> float | None:
    """The median over the rounds; `None` if nothing was measured, or a round failed."""
    if row is None or row["status"] != "ok" or not row["values"].get(name):
        return None
    return statistics.median(row["values"][name])


def ratio(number: float | None, reference: float | None) -> float | None:
    return None if number is None or reference is None or reference == 0 else number / reference


def log_log_slope(pixels: Sequence[float], seconds: Sequence[float]) -> float | None:
    """The exponent p of the power law seconds ~ pixels ** p that fits best; `None` for fewer than two sizes."""
    if len(set(pixels)) < 2:
        return None
    return statistics.linear_regression([math.log(x) for x in pixels], [math.log(y) for y in seconds]).slope


def missing(row: Row | None) -> str:
    """Why a figure is not there."""
    return NOT_MEASURED if row is None or row["status"] == "ok" else row["status"]


def seconds_text(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.1f} s"


def memory_text(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def ratio_text(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def size_text(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"


def title(contestant: dict[str, Any]) -> str:
    """A contestant in words, e.g. "MaSSFormer r50, fused, engine torchvision, bfloat16"."""
    model = contestant["model"]
    words = [MODEL_TITLES.get(model, model.replace("massformer-", "MaSSFormer "))]
    if contestant["fuse"]:
        words.append("fused")
    if contestant["engine"] is not None:
        words.append(f"engine {contestant['engine']}")
    if contestant["dtype"] != "float32":
        words.append(contestant["dtype"])
    if contestant["compile"]:
        words.append("compiled")
    return ", ".join(words)


def key_text(key: dict[str, Any]) -> str:
    """What a measurement is of, in a line."""
    texts = {"contestant": title, "size": size_text}
    return ", ".join(texts.get(name, str)(part) for name, part in key.items())


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; numbers, in all columns but the first, are aligned to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def distinct(items: Iterable[Any]) -> list[Any]:
    """Without repetitions, in order of appearance; also for what has no hash."""
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def all_keys(results: Results, section: str) -> list[dict[str, Any]]:
    """What was measured on any device."""
    return distinct(row["key"] for device in NAMES for row in section_rows(results, device, section))


def baseline_key(key: dict[str, Any]) -> dict[str, Any]:
    """The baseline under the same conditions: type, size and batch; never compiled."""
    contestant = {**key["contestant"], "model": BASELINE, "fuse": False, "engine": None, "compile": False}
    return {**key, "contestant": contestant}


def comparison_cells(rows: list[Row], key: dict[str, Any]) -> list[str]:
    """Time, its ratio to the baseline, peak memory and its ratio, on one device."""
    row, baseline = find_row(rows, key), find_row(rows, baseline_key(key))
    cells = []
    for name, text in (("seconds", seconds_text), ("peak_bytes", memory_text)):
        number = value(row, name)
        cells.append(missing(row) if number is None else text(number))
        cells.append(ratio_text(ratio(number, value(baseline, name))))
    return cells


def comparison_table(results: Results, section: str, keys: list[dict[str, Any]]) -> str:
    """One row per contestant; time, memory and their ratios to the baseline, side by side for each device."""
    header = ["model"]
    for device in NAMES:
        header += [f"{NAMES[device]} time", "ratio", "peak memory", "ratio"]
    lines = []
    for key in keys:
        cells = [comparison_cells(section_rows(results, device, section), key) for device in NAMES]
        lines.append([title(key["contestant"]), *[cell for group in cells for cell in group]])
    return table(header, lines)


def comparison_tables(results: Results, section: str) -> str:
    """A table for each size (and batch size)."""
    keys = all_keys(results, section)
    if not keys:
        return f"{NOT_MEASURED.capitalize()}."
    parts = []
    for conditions in distinct({**key, "contestant": None} for key in keys):
        batch = f", batch of {conditions['batch_size']}" if "batch_size" in conditions else ""
        parts.append(f"### {size_text(conditions['size'])}{batch}")
        parts.append(comparison_table(results, section, [k for k in keys if {**k, "contestant": None} == conditions]))
    return "\n\n".join(parts)


def deformable_table(results: Results, device: str) -> str:
    """Each engine's time for each deformable convolution, and how many times faster than torchvision's it is."""
    rows = section_rows(results, device, "deformable")
    if not rows:
        return f"{NOT_MEASURED.capitalize()}."
    engines = distinct(row["key"]["engine"] for row in rows)
    lines = []
    for conditions in distinct({**row["key"], "engine": None} for row in rows):
        reference = value(find_row(rows, {**conditions, "engine": "torchvision"}), "seconds")
        cells = [f"{conditions['layer']}", conditions["step"], size_text(conditions["size"]), conditions["dtype"]]
        for engine in engines:
            row = find_row(rows, {**conditions, "engine": engine})
            seconds = value(row, "seconds")
            cells.append(missing(row) if seconds is None else seconds_text(seconds))
            if engine != "torchvision":
                cells.append(ratio_text(ratio(reference, seconds)))
        lines.append(cells)
    header = ["layer", "step", "image", "type"]
    for engine in engines:
        header += [engine] if engine == "torchvision" else [engine, "times faster"]
    return table(header, lines)


def share_table(results: Results, device: str) -> str:
    """The share of all deformable convolutions in a forward, by engine."""
    lines = []
    for row in section_rows(results, device, "shares"):
        seconds, deformable_seconds = value(row, "seconds"), value(row, "deformable_seconds")
        share = ratio(deformable_seconds, seconds)
        cells = [row["key"]["engine"], row["key"]["dtype"], size_text(row["key"]["size"])]
        if seconds is None or deformable_seconds is None or share is None:
            cells += [missing(row)] * 3
        else:
            cells += [seconds_text(seconds), seconds_text(deformable_seconds), f"{share:.0%}"]
        lines.append(cells)
    if not lines:
        return f"{NOT_MEASURED.capitalize()}."
    return table(["engine", "type", "image", "whole forward", "deformable convolutions", "share"], lines)


def scaling_cells(rows: list[Row], contestant: dict[str, Any]) -> list[str]:
    """The exponent over all sizes, and the ratio of the times at 4096 x 4096 and 2048 x 2048."""
    measured = {}
    for row in rows:
        seconds = value(row, "seconds")
        if row["key"]["contestant"] == contestant and seconds is not None:
            measured[tuple(row["key"]["size"])] = seconds
    slope = log_log_slope([math.prod(size) for size in measured], list(measured.values()))
    times = ratio(measured.get((4096, 4096)), measured.get((2048, 2048)))
    return [NOT_MEASURED if number is None else f"{number:.2f}" for number in (slope, times)]


def scaling_table(results: Results) -> str:
    contestants = distinct(key["contestant"] for key in all_keys(results, "inference"))
    if not contestants:
        return f"{NOT_MEASURED.capitalize()}."
    header = ["model"]
    for device in NAMES:
        header += [f"{NAMES[device]} exponent", "4096 x 4096 : 2048 x 2048"]
    lines = []
    for contestant in contestants:
        cells = [scaling_cells(section_rows(results, d, "inference"), contestant) for d in NAMES]
        lines.append([title(contestant), *[cell for group in cells for cell in group]])
    return table(header, lines)


def achieved_cell(results: Results, device: str, key: dict[str, Any]) -> str:
    """Operations per second that a contestant reaches, and the share of the matrix product's."""
    row = find_row(section_rows(results, device, "inference"), key)
    seconds = value(row, "seconds")
    if seconds is None:
        return missing(row)
    counted = find_row(
        section_rows(results, device, "flops"), {"model": key["contestant"]["model"], "size": key["size"]}
    )
    per_second = ratio(value(counted, "flops"), seconds)
    if per_second is None:
        return missing(counted)
    ceiling = find_row(section_rows(results, device, "ceilings"), {"ceiling": key["contestant"]["dtype"]})
    share = ratio(per_second, value(ceiling, "per_second"))
    return f"{per_second / 1e9:.3g}" + ("" if share is None else f" ({share:.0%})")


def achieved_table(results: Results, device: str) -> str:
    keys = [row["key"] for row in section_rows(results, device, "inference")]
    if not keys:
        return f"{NOT_MEASURED.capitalize()}."
    sizes = distinct(key["size"] for key in keys)
    lines = [
        [title(contestant), *[achieved_cell(results, device, {"contestant": contestant, "size": s}) for s in sizes]]
        for contestant in distinct(key["contestant"] for key in keys)
    ]
    return table(["model", *map(size_text, sizes)], lines)


def operations_table(results: Results) -> str:
    """What one forward takes; the same on every device."""
    keys = all_keys(results, "flops")
    if not keys:
        return f"{NOT_MEASURED.capitalize()}."
    rows = [row for device in NAMES for row in section_rows(results, device, "flops")]
    sizes = distinct(key["size"] for key in keys)
    lines = []
    for model in distinct(key["model"] for key in keys):
        cells = [MODEL_TITLES.get(model, model.replace("massformer-", "MaSSFormer "))]
        for size in sizes:
            row = find_row(rows, {"model": model, "size": size})
            count = value(row, "flops")
            cells.append(missing(row) if count is None else f"{count / 1e12:.3g}")
        lines.append(cells)
    return table(["model", *map(size_text, sizes)], lines)


def ceiling_table(results: Results) -> str:
    lines = []
    for key in all_keys(results, "ceilings"):
        copy = key["ceiling"] == "copy"
        cells = ["copy, GB/s read and written" if copy else f"matrix product in {key['ceiling']}, GFLOP/s"]
        for device in NAMES:
            row = find_row(section_rows(results, device, "ceilings"), key)
            number = value(row, "per_second")
            cells.append(missing(row) if number is None else f"{number / 1e9:.4g}")
        lines.append(cells)
    if not lines:
        return f"{NOT_MEASURED.capitalize()}."
    return table(["", *[NAMES[device] for device in NAMES]], lines)


def metric_table(results: Results) -> str:
    """Time and memory of the metrics' methods, as multiples of this package's."""
    rows = section_rows(results, "cpu", "metrics")
    if not rows:
        return f"{NOT_MEASURED.capitalize()}."
    own = value(find_row(rows, {**rows[0]["key"], "method": "counts"}), "seconds")
    cells = []
    for row in rows:
        seconds, memory = value(row, "seconds"), value(row, "peak_bytes")
        cells.append(
            [
                METRIC_TITLES[row["key"]["method"]],
                missing(row) if seconds is None else f"{seconds:.3f} s",
                ratio_text(ratio(seconds, own)),
                "" if memory is None else memory_text(memory),
            ]
        )
    header = [f"a pair of {size_text(rows[0]['key']['size'])} pixels", "CPU time", "times the first", "peak memory"]
    return table(header, cells)


def spread_text(values: Sequence[float], scale: float, digits: int) -> str:
    """The mean and, of several seeds, their standard deviation."""
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def decoder_cells(row: Row) -> list[str]:
    values = row["values"]
    return [
        row["key"]["decoder"],
        f"{values['parameters'][0] / 1e6:.2f} M",
        spread_text(values["mean_iou"], 100, 2),
        spread_text(values["mean_boundary_iou"], 100, 2),
        spread_text(values["mean_bf1"], 1, 4),
        seconds_text(statistics.median(values["seconds"])),
        memory_text(max(values["peak_bytes"])),
    ]


def formulation_cells(row: Row) -> list[str]:
    values = row["values"]

    def cell(name: str, factor: int, digits: int) -> str:
        return spread_text(values[name], factor, digits) if name in values else "-"

    return [
        row["key"]["decoder"],
        f"{values['parameters'][0] / 1e6:.2f} M",
        cell("mean_iou", 100, 2),
        cell("mean_boundary_iou", 100, 2),
        cell("mean_bf1", 1, 4),
        cell("mean_pq_st", 100, 2),
        cell("general_mean_iou", 100, 2),
        cell("general_mean_pq_st", 100, 2),
        seconds_text(statistics.median(values["seconds"])),
    ]


def formulation_table(results: Results, device: str) -> str:
    """The same with what general inference makes of queries."""
    rows = section_rows(results, device, "formulations")
    if not rows:
        return "Not measured."
    header = ["model", "parameters", "mIoU", "BIoU", "BF1", "PQ^St", "mIoU, general", "PQ^St, general", "training"]
    return training_conditions(rows[0]) + "\n\n" + table(header, [formulation_cells(row) for row in rows])


def decoder_table(results: Results, device: str) -> str:
    """Scores of decoders that were trained alike, and under which conditions."""
    rows = section_rows(results, device, "decoders")
    if not rows:
        return "Not measured."
    header = ["decoder", "parameters", "mIoU", "BIoU", "BF1", "training", "peak memory"]
    return training_conditions(rows[0]) + "\n\n" + table(header, [decoder_cells(row) for row in rows])


def training_conditions(row: Row) -> str:
    """On what models were trained, and how long."""
    key, seeds = row["key"], len(row["values"]["mean_iou"])
    height, width = key["size"]
    return (
        f"{key['train']} scenes of {width} x {height} pixels to train on and {key['validation']} others to evaluate, "
        f"{key['steps']} steps of {key['batch_size']} crops of {key['crop_size']} pixels, {seeds} seeds, "
        f"{key['threads']} thread(s)."
    )


def matte_table(results: Results, device: str) -> str:
    """Errors of mattes against the true alpha."""
    rows = section_rows(results, device, "mattes")
    if not rows:
        return "Not measured."
    cells = [
        [
            row["key"]["class"],
            row["key"]["matte"],
            str(row["key"]["scenes"]),
            *(f"{value(row, name):.2f}" for name in ("sad", "mse", "gradient")),
            f"{value(row, 'seconds'):.1f} s" if value(row, "seconds") else "-",
        ]
        for row in rows
    ]
    header = ["class", "matte", "scenes", "SAD / 10^3", "MSE x 10^3", "gradient / 10^3", "refinement"]
    return table(header, cells)


def onnx_table(results: Results, device: str) -> str:
    """Time and memory of exported models beside PyTorch's."""
    rows = section_rows(results, device, "onnx")
    if not rows:
        return "Not measured."
    cells = []
    for row in rows:
        key = row["key"]
        eager = find_row(rows, {**key, "engine": "PyTorch"})
        start = [key["model"], size_text(key["size"]), GRAPH_TITLES[key["engine"]]]
        seconds, memory = value(row, "seconds"), value(row, "peak_bytes")
        if seconds is None or memory is None:
            cells.append([*start, missing(row), "", "", ""])
            continue
        slower, larger = ratio(seconds, value(eager, "seconds")), ratio(memory, value(eager, "peak_bytes"))
        cells.append([*start, seconds_text(seconds), ratio_text(slower), memory_text(memory), ratio_text(larger)])
    return table(["model", "pixels", "engine", "time", "x PyTorch", "peak memory", "x PyTorch"], cells)


SETTING_TITLES = {
    "tool": "pseudo-labels, as the tool made them",
    "merged": "pseudo-labels, where the label map says others",
    "alone": "without accurate labels",
    "unweighted": "without re-weighting",
    "reweighted": "with re-weighting (Eq. 7)",
}


def new_class_table(results: Results, device: str) -> str:
    """Scores of a class that was learned from pseudo-labels, and under which conditions."""
    rows = section_rows(results, device, "new_classes")
    if not rows:
        return "Not measured."
    key, seeds = rows[-1]["key"], len(rows[-1]["values"]["iou"])
    conditions = (
        f"{key['train_count']} scenes of {key['size']} pixels to train on, which show the class on "
        f"{100 * key['least_share']:g} % of their pixels or more, and {key['val_count']} others to evaluate, "
        f"{key['steps']} steps of {key['batch_size']} crops of {key['crop_size']} pixels, {seeds} seeds."
    )
    cells = [
        [
            SETTING_TITLES[row["key"]["setting"]],
            spread_text(row["values"]["iou"], 100, 2),
            spread_text(row["values"]["boundary_iou"], 100, 2),
            spread_text(row["values"]["bf1"], 1, 4),
        ]
        for setting in SETTING_TITLES
        for row in rows
        if row["key"]["setting"] == setting
    ]
    return conditions + "\n\n" + table(["bicycle", "IoU", "BIoU", "BF1"], cells)


def source_text(device: str, sections: list[str], source: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in source["versions"].items())
    limits = ""
    if source["time_limit"]:
        limits = f"; memory limit {source['memory_limit']}, time limit {source['time_limit']:g} s"
    return "\n".join(
        [
            f"* {NAMES[device]}: {', '.join(SECTION_TITLES[section] for section in sections)}",
            f"  * {source['machine']}",
            f"  * {versions}",
            f"  * {source['date']}; rounds: {source['rounds']}{limits}",
            f"  * `{source['command']}`",
        ]
    )


def sources(results: Results) -> str:
    """The machines, versions, dates and commands that the figures come from."""
    parts = []
    for device in NAMES:
        measured = results.get(device, {})
        if not measured:
            parts.append(f"* {NAMES[device]}: {NOT_MEASURED}")
        for source in distinct(section["source"] for section in measured.values()):
            sections = [name for name in SECTION_TITLES if measured.get(name, {}).get("source") == source]
            parts.append(source_text(device, sections, source))
    return "\n".join(parts)


def failures(results: Results) -> str:
    """The messages of what failed."""
    lines = []
    for device in NAMES:
        for section in SECTION_TITLES:
            for row in section_rows(results, device, section):
                if row["status"] == "failed":
                    what = f"{NAMES[device]}, {SECTION_TITLES[section]}, {key_text(row['key'])}"
                    lines.append(f"* {what}: `{row['detail']}`")
    return "\n".join(["## What failed", "", *lines]) if lines else ""


def for_each_device(results: Results, text: Callable[[Results, str], str]) -> str:
    """A part of the document under a heading for each device."""
    return "\n\n".join(f"### {NAMES[device]}\n\n{text(results, device)}" for device in NAMES)


DOCUMENT = """\
# Benchmarks

Written by `scripts/benchmarks/benchmark_model.py` from the figures in `{results_name}`; `--render-only` writes it
again.

{sources}

## What the figures mean

* All models have random weights and {num_labels} classes. {baseline} and MaskFormer-R50, with 100 queries and a
  ResNet-50, and SegFormer-B2 are those of transformers. MaSSFormer's deformable convolutions are given offsets of
  about {offset_pixels:g} pixels (standard deviation), because those of a fresh model are zero.
* Each figure was measured in a process of its own, after a warm-up. In each round every contestant has its turn; what
  stands here is the median over the rounds. What takes longer than the command's `--long` is measured in one round.
* Times of inference are of one image, from pixel values on the device to the label map at the image's own size: the
  model and its own `post_process_semantic_segmentation` with `target_sizes`. Reading and preparing the photograph is
  not in them. {baseline}'s post-processing goes through masks of 384 x 384, MaskFormer's and SegFormer's start
  from a quarter of the image's sides, MaSSFormer's from half of them: the label maps are not equally fine.
* Peak memory is, on the CPU, that of the whole process (Python, libraries, weights and all), and on CUDA that of
  PyTorch's allocator, while the timed runs last.
* Ratios are to {baseline} in the same type, not compiled; below 1 is faster, or smaller.
* "fused" models have been through `model.fuse()` (batch normalisations folded into convolutions, weights
  channels-last), as `massformer segment` runs them; others are as `from_pretrained` loads them. Types other than
  float32 are those of weights and input; in training, of autocast. The engine of deformable convolutions is the
  automatic choice where none is named.
* PyTorch's settings are its defaults: on CUDA, convolutions in float32 may use TF32, matrix products do not.
* "does not fit" needed more memory than the limit, "timed out" more time. Sizes are height x width.

## Inference

{inference}

## Training step

Forward, loss, backward and a step of AdamW.

{training}

## Deformable convolutions

Each of MaSSFormer-R50's by itself, at the size that its map has for the image, with offsets of {offset_pixels:g}
pixels (standard deviation) that differ at every position. "torchvision" is `torchvision.ops.deform_conv2d` in float32.

{deformable}

## Share of the deformable convolutions

In a forward of MaSSFormer-R50, fused; the convolutions that predict the offsets are not counted.

{shares}

## Cost against the number of pixels

The exponent p of seconds ~ pixels^p over all sizes measured, and the ratio of two of the times, which is 4 where the
cost is proportional to the number of pixels.

{scaling}

## Operations

Of one forward, in 10^12 floating-point operations, two per multiply-add: convolutions, matrix products and attention.
A deformable convolution counts as its matrix product.

{operations}

## Operations per second

In GFLOP/s, and as a share of what a large matrix product reaches in the same type. The time is that of inference
above, with post-processing, whose operations are not counted.

{achieved}

## What the machine reaches at best

{ceilings}

## Metrics

Label maps of seven classes, a scene's and a prediction with ragged boundaries, to scores. The three give the same
numbers. Peak memory is the whole process's.

{metrics}

## Decoders, trained alike

The paper's claim at a small scale: one backbone (EfficientNet-Lite0 with ImageNet weights), decoders of like widths,
and everything else the same: scenes, crops, steps, seeds, optimiser, and label maps read once at the images' own size.
The last four rows leave out modules as Table 4 of the paper does; "+" adds to the row above, and EGF, with the
supervision of edges, makes the full MaSSFormer. Mean and standard deviation over the seeds.
[training.md](training.md#what-the-comparison-shows) says what it shows and what not.

{decoders}

## Semantic layers, and masks against pixels

What the papers of SeMask and MaskFormer compare, at a small scale and trained alike. The first four rows put semantic
layers into a Swin a tenth of Swin-T's size, which starts from random weights; the others are on EfficientNet-Lite0
with ImageNet weights: per-pixel classification on MaSSFormer's pixel decoder, without and with its transformer
decoder, and mask classification with a query for each class or with bipartite matching. PQ^St counts a class in an
image as one segment. "General" gives each pixel to one query (MaskFormer, section 3.4), at a threshold of 0.3; its
other columns sum over queries. Mean and standard deviation over the seeds.

{formulations}

## A new class from pseudo-labels

The settings of the paper's Table 3 at a small scale: the demo model learns bicycles, which are part of "others" in its
scenes, from masks that a stand-in for a labelling tool has spoiled, and is scored against the exact ones. Mean and
standard deviation over the seeds. [new_classes.md](new_classes.md#what-the-comparison-shows) says what it shows.

{new_classes}

## Mattes

Errors against the true alpha of scenes, which the demo model segments: of its label map taken as a matte, of its soft
mattes (`massformer segment --mattes`), and of those with `--refine-mattes`. Sums and the time of refinement are per
megapixel. The scenes are those of
`massformer scenes --output matte-scenes --count 4 --size 4096x3072 --seed 78 --split val --alpha`.

{mattes}

## ONNX

Models exported for photographs of any size (`massformer export --dynamic`), by ONNX Runtime on the CPU, beside the
same models in PyTorch. From a photograph in memory to its label map; each in a process of its own, whose whole memory
is counted. Variants have random weights.

{onnx}

{failures}"""


def render(results: Results, results_name: str) -> str:
    """The document, in Markdown."""
    text = DOCUMENT.format(
        results_name=results_name,
        sources=sources(results),
        baseline=BASELINE_TITLE,
        num_labels=len(MASS13K_LABELS),
        offset_pixels=OFFSET_PIXELS,
        inference=comparison_tables(results, "inference"),
        training=comparison_tables(results, "training"),
        deformable=for_each_device(results, deformable_table),
        shares=for_each_device(results, share_table),
        scaling=scaling_table(results),
        operations=operations_table(results),
        achieved=for_each_device(results, achieved_table),
        ceilings=ceiling_table(results),
        metrics=metric_table(results),
        decoders=for_each_device(results, decoder_table),
        formulations=for_each_device(results, formulation_table),
        mattes=for_each_device(results, matte_table),
        onnx=for_each_device(results, onnx_table),
        new_classes=for_each_device(results, new_class_table),
        failures=failures(results),
    )
    return text.rstrip() + "\n"
