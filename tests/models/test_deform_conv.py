import os
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.deformable import random_inputs, reference
from support.tiny import tiny_model

from transformers_massformer import ModulatedDeformConv2d
from transformers_massformer.models import deform_conv
from transformers_massformer.models.deform_conv import (
    banded_deform_conv2d,
    rows_read,
    sampled_deform_conv2d,
    torchvision_deform_conv2d,
)


def naive_deform_conv(hidden_states, offsets, modulation, weight):
    """Compute one image by the definition, one output value at a time."""
    _, height, width = hidden_states.shape
    out_channels, _, side, _ = weight.shape
    output = np.zeros((out_channels, height, width))

    def sample(y, x):
        value = 0
        for row, column in np.ndindex(2, 2):
            r, c = int(np.floor(y)) + row, int(np.floor(x)) + column
            if 0 <= r < height and 0 <= c < width:
                value = value + (1 - abs(y - r)) * (1 - abs(x - c)) * hidden_states[:, r, c]
        return value

    for y, x in np.ndindex(height, width):
        for tap in range(side * side):
            i, j = divmod(tap, side)
            dy, dx = offsets[2 * tap, y, x], offsets[2 * tap + 1, y, x]
            value = sample(y + i - side // 2 + dy, x + j - side // 2 + dx) * modulation[tap, y, x]
            output[:, y, x] += weight[:, :, i, j] @ (value + np.zeros(len(hidden_states)))
    return output


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([0.0, 0.5, 3.0, 1e3, 1e9]),
    st.integers(1, 300),
    st.integers(1, 300),
)
def test_bands_equal_torchvision(
    batch_size, in_channels, out_channels, height, width, side, spread, band_taps, sampled_values
):
    inputs = random_inputs(batch_size, in_channels, out_channels, height, width, side, spread)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deform_conv, "BAND_TAPS", band_taps)
        patch.setattr(deform_conv, "SAMPLED_BYTES", 8 * sampled_values)
        torch.testing.assert_close(banded_deform_conv2d(*inputs), reference(*inputs))
        # Without gradients, the sampled values are multiplied in another way.
        with torch.inference_mode():
            torch.testing.assert_close(banded_deform_conv2d(*inputs), reference(*inputs))


@pytest.mark.parametrize("side", [1, 3])
def test_all_engines_equal_the_definition(side):
    inputs = random_inputs(1, 2, 3, 4, 5, side)
    expected = naive_deform_conv(*(x[0].numpy() for x in inputs[:3]), inputs[3].numpy())
    for engine in (banded_deform_conv2d, sampled_deform_conv2d, reference):
        np.testing.assert_allclose(engine(*inputs)[0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("engine", "sampled_values", "kept_values"),
    [
        (banded_deform_conv2d, 60, 0),
        (banded_deform_conv2d, 60, 10**6),
        (banded_deform_conv2d, 10**6, 0),
        (banded_deform_conv2d, 10**6, 10**6),
        (sampled_deform_conv2d, 10**6, 0),
    ],
)
def test_gradients_equal_torchvision_s(monkeypatch, engine, sampled_values, kept_values):
    monkeypatch.setattr(deform_conv, "BAND_TAPS", 4 * sampled_values)
    monkeypatch.setattr(deform_conv, "KEPT_VALUES", kept_values)
    monkeypatch.setattr(deform_conv, "SAMPLED_BYTES", 8 * sampled_values)
    inputs = [x.requires_grad_() for x in random_inputs(2, 3, 4, 6, 7, 3)]
    upstream = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    actual = torch.autograd.grad(engine(*inputs), inputs, upstream)
    expected = torch.autograd.grad(reference(*inputs), inputs, upstream)
    for name, a, b in zip(("input", "offsets", "modulation", "weight"), actual, expected, strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("kept_values", "planned"), [(0, 2), (10**6, 1)])
def test_the_bands_of_large_batches_are_recomputed(monkeypatch, kept_values, planned):
    calls = []
    plan = deform_conv.sampling_plan
    monkeypatch.setattr(deform_conv, "sampling_plan", lambda *args: calls.append(args) or plan(*args))
    monkeypatch.setattr(deform_conv, "KEPT_VALUES", kept_values)
    banded_deform_conv2d(*(x.requires_grad_() for x in random_inputs(1, 3, 4, 6, 7, 3))).sum().backward()
    assert len(calls) == planned


def test_gradients_of_offsets_are_exact_where_the_backward_pass_runs_in_autocast():
    gradients = []
    for is_inside in (False, True):
        inputs = random_inputs(1, 8, 4, 6, 7, 3, dtype=torch.float32)
        offsets = inputs[1].requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = banded_deform_conv2d(*inputs).float().square().sum()
            if is_inside:
                loss.backward()
        if not is_inside:
            loss.backward()
        gradients.append(offsets.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("engine", [banded_deform_conv2d, sampled_deform_conv2d, torchvision_deform_conv2d])
def test_offsets_that_are_no_numbers_read_nothing(engine):
    hidden_states, offsets, modulation, weight = random_inputs(1, 2, 3, 4, 5, 3)
    offsets[0, 4, 2, 3], offsets[0, 7, 1, 1] = float("nan"), float("nan")
    offsets[0, 0, 0, 0], offsets[0, 1, 0, 0] = float("inf"), -float("inf")
    far = offsets.nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6)
    expected = reference(hidden_states, far, modulation, weight)
    torch.testing.assert_close(engine(hidden_states, offsets, modulation, weight), expected)
    offsets.requires_grad_()
    engine(hidden_states, offsets, modulation, weight).sum().backward()
    assert offsets.grad.isfinite().all()
    assert offsets.grad[0, 4, 2, 3] == 0


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(0, 11),
    st.integers(1, 12),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([0.0, 1.0, 4.0, 1e3]),
    st.sampled_from([banded_deform_conv2d, sampled_deform_conv2d, torchvision_deform_conv2d]),
)
def test_bands_are_computed_from_the_rows_they_read(height, first, rows, side, spread, engine):
    hidden_states, offsets, modulation, weight = random_inputs(2, 3, 2, height, 4, side, spread)
    first = min(first, height - 1)
    last = min(first + rows, height)
    bias = torch.randn(2, dtype=torch.float64)
    expected = reference(hidden_states, offsets, modulation, weight)[:, :, first:last] + bias[:, None, None]
    top, bottom = rows_read(offsets[:, :, first:last], first, height)
    assert 0 <= top <= first < last <= bottom <= height
    window = hidden_states[:, :, top:bottom]
    actual = engine(window, offsets[:, :, first:last], modulation[:, :, first:last], weight, bias, first - top)
    torch.testing.assert_close(actual, expected)


def test_windows_are_no_larger_than_the_offsets_reach():
    offsets = torch.zeros(1, 18, 10, 4)
    offsets[:, 0::2] = torch.linspace(-2.5, 3.5, 10)[:, None]
    # Three rows up and five down with the interpolation, and one tap further each way.
    assert rows_read(offsets, 50, 100) == (50 - 3 - 2, 60 + 4 + 2)
    assert rows_read(torch.full((1, 18, 10, 4), float("nan")), 50, 100) == (48, 62)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_formats_and_views(memory_format):
    inputs = random_inputs(2, 4, 3, 6, 8, 3)
    expected = reference(*inputs)
    strided = [x.to(memory_format=memory_format) for x in inputs[:3]]
    torch.testing.assert_close(banded_deform_conv2d(*strided, inputs[3]), expected)
    views = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in inputs[:3]]
    torch.testing.assert_close(banded_deform_conv2d(*views, inputs[3]), expected)


@pytest.mark.parametrize("engine", [None, "torchvision", "grid_sample", "banded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gradients", [False, True])
def test_module_keeps_the_type(dtype, engine, gradients):
    hidden_states, offsets, modulation, weight = (x.to(dtype) for x in random_inputs(1, 4, 3, 6, 8, 3))
    module = ModulatedDeformConv2d(4, 3, 3, engine).to(dtype)
    module.weight.data = weight
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.set_grad_enabled(gradients):
        output = module(hidden_states, offsets, modulation)
    assert output.dtype == dtype
    expected = reference(*(x.double() for x in (hidden_states, offsets, modulation, weight)))
    # Each of 36 samples and weights is rounded once to the type, and so is their sum.
    tolerance = 36**0.5 * 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(output.double(), expected, rtol=tolerance, atol=8 * tolerance)


def test_the_engine_is_chosen_by_device_and_request(monkeypatch):
    tensor = torch.zeros(1)
    assert deform_conv.choose_engine(None, tensor) == "banded"
    assert deform_conv.choose_engine("torchvision", tensor) == "torchvision"
    assert ModulatedDeformConv2d(2, 2, 3, "torchvision").engine == "torchvision"
    monkeypatch.setenv("MASSFORMER_DEFORM_CONV_ENGINE", "banded")
    assert ModulatedDeformConv2d(2, 2, 3, "torchvision").engine == "banded"
    monkeypatch.setenv("MASSFORMER_DEFORM_CONV_ENGINE", "")
    assert ModulatedDeformConv2d(2, 2, 3).engine is None
    monkeypatch.setenv("MASSFORMER_DEFORM_CONV_ENGINE", "fastest")
    with pytest.raises(ValueError, match="Unknown engine 'fastest'.*banded.*MASSFORMER_DEFORM_CONV_ENGINE"):
        ModulatedDeformConv2d(2, 2, 3)


FAILURES = {
    "no compiler": RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
    "no writable cache": PermissionError("[Errno 13] Permission denied: '/root/.triton'"),
    "no headers": subprocess.CalledProcessError(1, ["gcc"]),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_where_triton_cannot_run_torchvision_does(monkeypatch, failure):
    """Inputs pretend to lie on a GPU, and launching a kernel to fail."""
    warnings = []

    def launch():
        raise FAILURES[failure]

    monkeypatch.setattr(deform_conv, "is_triton_available", lambda: True)
    monkeypatch.setattr(deform_conv, "launch_probe", launch)
    monkeypatch.setattr(deform_conv, "is_tracing", lambda tensor: False)
    monkeypatch.setattr(deform_conv.logger, "warning", warnings.append)
    deform_conv.triton_works.cache_clear()
    on_gpu = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    assert [deform_conv.choose_engine(None, on_gpu) for _ in range(3)] == ["torchvision"] * 3
    (warning,) = warnings
    assert "cannot run" in warning
    assert "TRITON_CACHE_DIR" in warning
    # Whoever asks for Triton gets its error.
    assert deform_conv.choose_engine("triton", on_gpu) == "triton"
    deform_conv.triton_works.cache_clear()
    monkeypatch.setattr(deform_conv, "launch_probe", lambda: None)
    assert deform_conv.choose_engine(None, on_gpu) == "triton"
    deform_conv.triton_works.cache_clear()


def test_a_lack_of_memory_is_not_taken_for_a_lack_of_triton(monkeypatch):
    def launch():
        raise torch.OutOfMemoryError("CUDA out of memory")

    deform_conv.triton_works.cache_clear()
    monkeypatch.setattr(deform_conv, "launch_probe", launch)
    with pytest.raises(torch.OutOfMemoryError):
        deform_conv.triton_works()


def test_the_configuration_s_engine_reaches_every_layer():
    model = tiny_model(deform_conv_engine="torchvision")
    layers = [x for x in model.modules() if isinstance(x, ModulatedDeformConv2d)]
    assert {x.engine for x in layers} == {"torchvision"}
    with pytest.raises(ValueError, match="Unknown engine 'quick'"):
        tiny_model(deform_conv_engine="quick")


def test_the_choice_is_logged_once(monkeypatch):
    messages = []
    monkeypatch.setattr(deform_conv.logger, "info_once", messages.append)
    module = ModulatedDeformConv2d(2, 2, 1)
    module(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3))
    assert messages == ["Deformable convolutions on cpu in torch.float32 use the banded engine."]


@pytest.mark.parametrize("engine", [None, "banded", "torchvision"])
def test_traced_programs_have_torchvision_s_operator(engine):
    module = ModulatedDeformConv2d(4, 3, 3, engine).eval()
    *inputs, weight = (x.float() for x in random_inputs(1, 4, 3, 6, 8, 3))
    module.weight.data = weight
    program = torch.export.export(module, tuple(inputs))
    # Autocast is disabled around it, which creates a separate graph.
    graphs = [x.graph for x in program.graph_module.modules() if isinstance(x, torch.fx.GraphModule)]
    assert any("torchvision.deform_conv2d" in str(node.target) for graph in graphs for node in graph.nodes)
    torch.testing.assert_close(program.module()(*inputs), module(*inputs))


@pytest.mark.parametrize("engine", ["banded", "grid_sample", "torchvision"])
@pytest.mark.parametrize("shape", [(0, 2, 4, 5), (1, 2, 0, 5), (1, 2, 4, 0)])
def test_nothing_in_gives_nothing_out(engine, shape):
    batch_size, channels, height, width = shape
    module = ModulatedDeformConv2d(channels, 3, 3, engine)
    offsets, modulation = torch.zeros(batch_size, 18, height, width), torch.zeros(batch_size, 9, height, width)
    output = module(torch.zeros(shape, requires_grad=True), offsets, modulation)
    assert output.shape == (batch_size, 3, height, width)
    output.sum().backward()


@pytest.mark.skipif(os.environ.get("RUN_SLOW") != "1", reason="samples 2.3 thousand million values; RUN_SLOW=1")
def test_more_samples_than_32_bits_count():
    channels, side, size = 64, 7, 860
    assert channels * side**2 * size**2 > 2**31
    hidden_states, offsets, modulation, weight = random_inputs(1, channels, 2, size, size, side)
    inputs = [x.float() for x in (hidden_states, offsets, modulation, weight)]
    with torch.no_grad():
        actual = banded_deform_conv2d(*inputs)
    top = size - 40
    expected = reference(*(x[:, :, top:] for x in inputs[:3]), inputs[3])
    # Positions near 860 are known to 6e-5 pixels, and 3136 samples add up.
    torch.testing.assert_close(actual[:, :, -10:], expected[:, :, -10:], rtol=1e-4, atol=2e-2)
