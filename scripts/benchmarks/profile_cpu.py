"""
Show where the time of inference on a CPU goes: wall time, CPU time, page faults and peak memory of one image, from
pixel values to the label map, and its largest costs with their bytes and operations. Writes Markdown. For Unix.
"""

import resource
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Any

import torch
import typer
from benchmark_worker import Contestant, build, ceilings
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from transformers_massformer.cli.options import parse_size
from transformers_massformer.inference.memory import PeakMemory
from transformers_massformer.utils.text import format_bytes, markdown_table


@dataclass
class Cost:
    """Sums over all calls of an operator from one function."""

    seconds: float = 0.0
    calls: int = 0
    num_bytes: int = 0
    operations: int = 0


def calling_function(frame: FrameType | None) -> str:
    """Return the innermost function of a model's file on the call stack, with its class."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(("transformers_massformer.", "transformers.models.")):
            return frame.f_code.co_qualname.replace(".<locals>", "")
        frame = frame.f_back
    return "-"


class CostCounter(TorchDispatchMode):
    """
    Add up the seconds, bytes (of inputs and outputs) and operations (two per multiply-add, as PyTorch counts them) of
    operators, by operator and calling function.
    """

    def __init__(self):
        super().__init__()
        self.costs: defaultdict[tuple[str, str], Cost] = defaultdict(Cost)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        start = time.perf_counter()
        output = func(*args, **kwargs)
        seconds = time.perf_counter() - start
        cost = self.costs[func.overloadpacket.__name__, calling_function(sys._getframe(1))]
        cost.seconds += seconds
        cost.calls += 1
        cost.num_bytes += sum(x.nbytes for x in tree_leaves((args, kwargs, output)) if isinstance(x, torch.Tensor))
        if func.overloadpacket in flop_registry:
            cost.operations += flop_registry[func.overloadpacket](*args, **kwargs, out_val=output)
        return output


def measure_process(step: Any) -> dict[str, float]:
    """Measure one run of a step: seconds of wall and CPU time, page faults, and the process's peak memory."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with PeakMemory("cpu") as memory:
        step()
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall": seconds,
        "user": after.ru_utime - before.ru_utime,
        "system": after.ru_stime - before.ru_stime,
        "page_faults": after.ru_minflt - before.ru_minflt,
        "peak_bytes": memory.bytes or 0,
    }


def costs_table(costs: dict[tuple[str, str], Cost], count: int) -> str:
    """Render the largest costs and the sum of the rest."""
    ordered = sorted(costs.items(), key=lambda item: -item[1].seconds)
    total = sum(cost.seconds for cost in costs.values())
    rest = Cost(*(sum(values) for values in zip(*(tuple(vars(c).values()) for _, c in ordered[count:]), strict=True)))
    rows = [["operator", "called by", "calls", "time", "share", "GB", "GB/s", "GFLOP", "GFLOP/s"]]
    for (operator, caller), cost in [*ordered[:count], (("others", ""), rest)]:
        seconds = max(cost.seconds, 1e-9)
        rows.append(
            [
                *(operator, caller, str(cost.calls), f"{cost.seconds:.2f} s", f"{cost.seconds / total:.1%}"),
                *(f"{cost.num_bytes / 1e9:.2f}", f"{cost.num_bytes / 1e9 / seconds:.1f}"),
                *(f"{cost.operations / 1e9:.0f}", f"{cost.operations / 1e9 / seconds:.0f}"),
            ]
        )
    return markdown_table(rows)


def main(
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "2048x2048",
    model: Annotated[str, typer.Option(help="A variant (massformer-r50) or a folder of hub/.")] = "massformer-r50",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "bfloat16",
    count: Annotated[int, typer.Option(help="Costs to list.", min=1)] = 12,
):
    width, height = parse_size(size)
    network, processor = build(Contestant(model, dtype=dtype, fuse=True), "cpu")
    network.to(getattr(torch, dtype))
    pixel_values = torch.randn(1, 3, height, width).to(getattr(torch, dtype))

    # Not in inference mode, which hides the parts of composite operators.
    @torch.no_grad()
    def segment():
        outputs = network(pixel_values=pixel_values)
        processor.post_process_semantic_segmentation(outputs, target_sizes=[(height, width)])

    segment()
    values = measure_process(segment)
    with CostCounter() as counter:
        segment()
    operations = sum(cost.operations for cost in counter.costs.values())
    rate, peak = operations / values["wall"], ceilings({"ceiling": dtype}, "cpu")["per_second"]
    typer.echo(
        f"{model}, {dtype}, {width} x {height}: {values['wall']:.2f} s; CPU {values['user']:.2f} s in the program and "
        f"{values['system']:.2f} s in the system; {values['page_faults']:,} page faults; peak memory "
        f"{format_bytes(values['peak_bytes'])}; {rate / 1e9:.0f} GFLOP/s, {rate / peak:.0%} of a matrix product's "
        f"{peak / 1e9:.0f}.\n"
    )
    typer.echo(costs_table(counter.costs, count), nl=False)


if __name__ == "__main__":
    typer.run(main)
