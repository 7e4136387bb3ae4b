"""Bilinear resizing by its formula."""

import torch


def resized_densely(maps: torch.Tensor, input_size, valid_size, target_size) -> torch.Tensor:
    """Resize the part of maps `(..., height, width)` that shows the valid part of an input, all at once in float64."""
    maps = maps.double()
    for axis, full, valid, target in zip((-2, -1), input_size, valid_size, target_size, strict=True):
        size = maps.shape[axis]
        positions = ((torch.arange(target).double() + 0.5) * valid / target * size / full - 0.5).clamp(0, size - 1)
        low = positions.floor().long()
        high = (low + 1).clamp(max=size - 1)
        weight = (positions - low).view(-1, 1) if axis == -2 else positions - low
        maps = maps.index_select(axis, low) * (1 - weight) + maps.index_select(axis, high) * weight
    return maps
