import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import deform_conv2d

from transformers_massformer import ModulatedDeformConv2d, deform_conv
from transformers_massformer.deform_conv import banded_deform_conv2d


def naive_deform_conv(hidden_states, offsets, modulation, weight):
    """The definition, one output value at a time, for one image."""
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


def random_inputs(batch_size, in_channels, out_channels, height, width, side, spread=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return (
        normal(batch_size, in_channels, height, width),
        spread * normal(batch_size, 2 * side * side, height, width),
        normal(batch_size, side * side, height, width).sigmoid(),
        normal(out_channels, in_channels, side, side),
    )


def reference(hidden_states, offsets, modulation, weight):
    padding = (weight.shape[-1] // 2,) * 2
    return deform_conv2d(hidden_states, offsets, weight, padding=padding, mask=modulation)


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
)
def test_bands_equal_torchvision(batch_size, in_channels, out_channels, height, width, side, spread, band_values):
    inputs = random_inputs(batch_size, in_channels, out_channels, height, width, side, spread)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deform_conv, "BAND_VALUES", band_values)
        torch.testing.assert_close(banded_deform_conv2d(*inputs), reference(*inputs))


@pytest.mark.parametrize("side", [1, 3])
def test_both_engines_equal_the_definition(side):
    inputs = random_inputs(1, 2, 3, 4, 5, side)
    expected = naive_deform_conv(*(x[0].numpy() for x in inputs[:3]), inputs[3].numpy())
    np.testing.assert_allclose(banded_deform_conv2d(*inputs)[0].numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(reference(*inputs)[0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("band_values", [60, 10**6])
def test_gradients_equal_torchvision_s(monkeypatch, band_values):
    monkeypatch.setattr(deform_conv, "BAND_VALUES", band_values)
    inputs = [x.requires_grad_() for x in random_inputs(2, 3, 4, 6, 7, 3)]
    upstream = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    actual = torch.autograd.grad(banded_deform_conv2d(*inputs), inputs, upstream)
    expected = torch.autograd.grad(reference(*inputs), inputs, upstream)
    for name, a, b in zip(("input", "offsets", "modulation", "weight"), actual, expected, strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


def test_offsets_that_are_no_numbers_read_nothing():
    hidden_states, offsets, modulation, weight = random_inputs(1, 2, 3, 4, 5, 3)
    offsets[0, 4, 2, 3] = float("nan")
    far = offsets.clone()
    far[0, 4, 2, 3] = 1e6
    torch.testing.assert_close(
        banded_deform_conv2d(hidden_states, offsets, modulation, weight),
        banded_deform_conv2d(hidden_states, far, modulation, weight),
    )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_formats_and_views(memory_format):
    inputs = random_inputs(2, 4, 3, 6, 8, 3)
    expected = reference(*inputs)
    strided = [x.to(memory_format=memory_format) for x in inputs[:3]]
    torch.testing.assert_close(banded_deform_conv2d(*strided, inputs[3]), expected)
    views = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in inputs[:3]]
    torch.testing.assert_close(banded_deform_conv2d(*views, inputs[3]), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_module_computes_in_float32_and_keeps_the_type(dtype):
    hidden_states, offsets, modulation, weight = (x.to(dtype) for x in random_inputs(1, 4, 3, 6, 8, 3))
    module = ModulatedDeformConv2d(4, 3, 3).to(dtype)
    module.weight.data = weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(hidden_states, offsets, modulation)
    assert output.dtype == dtype
    expected = reference(*(x.float() for x in (hidden_states, offsets, modulation, weight)))
    torch.testing.assert_close(output, expected.to(dtype))
