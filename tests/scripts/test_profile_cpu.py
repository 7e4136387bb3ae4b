"""Counted costs of operators, and the report of a model's costs."""

import profile_cpu
import pytest
import torch
import torch.nn.functional as F
import typer
from benchmark_worker import Contestant
from support.tiny import tiny_model
from typer.testing import CliRunner

from transformers_massformer import MaSSFormerImageProcessor


def test_costs_of_a_convolution_are_those_of_its_shapes():
    x, weight = torch.randn(1, 3, 8, 10), torch.randn(5, 3, 3, 3)
    with torch.no_grad(), profile_cpu.CostCounter() as counter:
        for _ in range(2):
            F.conv2d(x, weight, padding=1)
    cost = counter.costs["convolution", "-"]
    assert cost.calls == 2
    assert cost.operations == 2 * (2 * 5 * 3 * 9 * 80)
    assert cost.num_bytes == 2 * 4 * (3 * 80 + 5 * 27 + 5 * 80)
    assert cost.seconds > 0


def test_the_table_lists_the_largest_costs_and_the_rest():
    costs = {(str(n), "Layer.forward"): profile_cpu.Cost(n, 1, n * 10**9, 2 * n * 10**9) for n in (1, 3, 6)}
    lines = profile_cpu.costs_table(costs, 1).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:6]] == ["6", "Layer.forward", "1", "6.00 s", "60.0%"]
    assert [cell.strip() for cell in lines[3].split("|")[1:]][:9] == [
        *("others", "", "2", "4.00 s", "40.0%", "4.00", "1.0", "8", "2")
    ]
    assert len(lines) == 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_report_of_a_tiny_model(monkeypatch, dtype):
    def build(contestant: Contestant, device: str):
        assert (contestant.dtype, contestant.fuse) == (dtype, True)
        return tiny_model().fuse(), MaSSFormerImageProcessor()

    monkeypatch.setattr(profile_cpu, "build", build)
    monkeypatch.setattr(profile_cpu, "ceilings", lambda key, device: {"per_second": 1e12})
    app = typer.Typer()
    app.command()(profile_cpu.main)
    result = CliRunner().invoke(app, ["--size", "64x96", "--dtype", dtype, "--count", "500"])
    assert result.exit_code == 0, result.output
    first, _, header, _, *rows = result.output.splitlines()
    assert first.startswith(f"massformer-r50, {dtype}, 64 x 96: ")
    assert header.startswith("| operator | called by |")
    assert any(row.startswith("| addmm | MaSSFormerAttention.forward |") for row in rows)
    assert rows[-1].startswith("| others |  | 0 |")
