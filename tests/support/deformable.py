"""Inputs of deformable convolutions, and their reference."""

import torch
from torchvision.ops import deform_conv2d


def random_inputs(
    batch_size, in_channels, out_channels, height, width, side, spread=2.0, seed=0, dtype=torch.float64
) -> tuple[torch.Tensor, ...]:
    """Create hidden states, offsets with standard deviation `spread` in pixels, modulation and weight."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return (
        normal(batch_size, in_channels, height, width).to(dtype),
        spread * normal(batch_size, 2 * side * side, height, width).to(dtype),
        normal(batch_size, side * side, height, width).sigmoid().to(dtype),
        (normal(out_channels, in_channels, side, side) / (side * in_channels**0.5)).to(dtype),
    )


def reference(hidden_states, offsets, modulation, weight):
    """Compute the convolution with torchvision's operator."""
    padding = (weight.shape[-1] // 2,) * 2
    return deform_conv2d(hidden_states, offsets, weight, padding=padding, mask=modulation)
