# Copyright 2026 The transformers-massformer authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Modulated deformable convolution (Deformable ConvNets v2, arXiv:1811.11168) for GPUs: sampling and matrix product are
one Triton kernel per pass, so that the samples of all taps are never stored.
"""

import inspect
import re
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import torch


def import_triton() -> tuple[Any, Any]:
    """Import Triton and its language, untyped for checkers; without Triton, return what kernel definitions need."""
    try:
        import triton
        import triton.language
    except ImportError:
        return None, SimpleNamespace(constexpr=int)
    return triton, triton.language


triton, tl = import_triton()

# Positions of one program: a patch instead of part of a row, so that neighboring taps read the same cache lines.
TILE_HEIGHT, TILE_WIDTH = 4, 16
# Widest blocks of channels that fit the registers of a thread (ptxas, compute capability 8.0 and 9.0). A block of
# samples is a cache line; the backward pass of sampling needs more registers.
MAX_BLOCK_BYTES = 128
MAX_BLOCK_CHANNELS_IN_BACKWARD = 32
MAX_BLOCK_OUT_CHANNELS = 128
# Bytes that a thread loads at once; a position's channels start at multiples of it.
VECTOR_BYTES = 16
# Programs of the weight's gradient: enough for the largest GPUs, their partial sums a few tens of megabytes at most.
WEIGHT_GRADIENT_PROGRAMS = 1024
# One operator per copy of this file: remote code may be a second copy in the same process.
NAMESPACE = re.sub(r"\W", "_", __name__.rpartition(".")[0] or __name__)


def is_triton_available() -> bool:
    """Return whether Triton can be imported. Kernels run on GPUs, and on the CPU only with `TRITON_INTERPRET=1`."""
    return triton is not None


def jit(function):
    """
    Apply `triton.jit` so that sizes and strides, which differ between images, do not trigger compilation. Without
    Triton, return the function unchanged; it is never called then.
    """
    if triton is None:
        return function
    arguments = inspect.signature(function).parameters.values()
    sizes = [x.name for x in arguments if x.annotation is x.empty and not x.name.endswith("_ptr")]
    return triton.jit(function, do_not_specialize=sizes)


@jit
def tile_positions(tile, rows, width, TILE_HEIGHT: tl.constexpr, TILE_WIDTH: tl.constexpr):
    """Locate a tile: its image, the row and column of each position, and which of them exist."""
    tiles_down, tiles_across = tl.cdiv(rows, TILE_HEIGHT), tl.cdiv(width, TILE_WIDTH)
    image = tile // (tiles_down * tiles_across)
    position = tl.arange(0, TILE_HEIGHT * TILE_WIDTH)
    row = tile // tiles_across % tiles_down * TILE_HEIGHT + position // TILE_WIDTH
    column = tile % tiles_across * TILE_WIDTH + position % TILE_WIDTH
    # 64 bits: addresses are products of these, and large maps have more than 2^31 values.
    return image.to(tl.int64), row.to(tl.int64), column.to(tl.int64), (row < rows) & (column < width)


@jit
def sampling_plan(
    offsets_ptr,
    offsets_channel,
    modulation_ptr,
    modulation_channel,
    tap,
    row,
    column,
    exists,
    height,
    width,
    KERNEL_SIZE: tl.constexpr,
    FLOAT: tl.constexpr,
):
    """
    Compute where a tap reads at each position: the index of the upper left of its four neighbors, the distances from
    it, the modulation, and whether the neighbors' rows and columns are inside the map.
    """
    offsets_ptr += 2 * tap * offsets_channel.to(tl.int64)
    y = (row + (tap // KERNEL_SIZE - KERNEL_SIZE // 2)).to(FLOAT)
    y += tl.load(offsets_ptr, mask=exists, other=0).to(FLOAT)
    x = (column + (tap % KERNEL_SIZE - KERNEL_SIZE // 2)).to(FLOAT)
    x += tl.load(offsets_ptr + offsets_channel, mask=exists, other=0).to(FLOAT)
    # NaN fails every comparison. Values that fail become 0, so that no conversion to an integer overflows.
    inside = exists & (y >= -1) & (y < height) & (x >= -1) & (x < width)
    y, x = tl.where(inside, y, 0), tl.where(inside, x, 0)
    modulation = tl.load(modulation_ptr + tap * modulation_channel.to(tl.int64), mask=inside, other=0).to(FLOAT)
    floor_y, floor_x = tl.floor(y), tl.floor(x)
    top, left = floor_y.to(tl.int64), floor_x.to(tl.int64)
    in_top, in_bottom = inside & (top >= 0), inside & (top < height - 1)
    in_left, in_right = left >= 0, left < width - 1
    return top * width + left, y - floor_y, x - floor_x, modulation, in_top, in_bottom, in_left, in_right


@jit
def load_neighbours(
    map_ptr,
    index,
    in_top,
    in_bottom,
    in_left,
    in_right,
    channel,
    width,
    CHANNELS: tl.constexpr,
    FLOAT: tl.constexpr,
):
    """Load a block of channels of the four neighbors of each position, 0 outside the map."""
    upper = map_ptr + index[:, None] * CHANNELS + channel[None, :]
    lower = upper + width.to(tl.int64) * CHANNELS
    known = (channel < CHANNELS)[None, :]
    upper_left = tl.load(upper, mask=(in_top & in_left)[:, None] & known, other=0).to(FLOAT)
    upper_right = tl.load(upper + CHANNELS, mask=(in_top & in_right)[:, None] & known, other=0).to(FLOAT)
    lower_left = tl.load(lower, mask=(in_bottom & in_left)[:, None] & known, other=0).to(FLOAT)
    lower_right = tl.load(lower + CHANNELS, mask=(in_bottom & in_right)[:, None] & known, other=0).to(FLOAT)
    return upper_left, upper_right, lower_left, lower_right


@jit
def add_to_neighbours(
    map_ptr,
    index,
    in_top,
    in_bottom,
    in_left,
    in_right,
    below,
    right,
    channel,
    width,
    values,
    CHANNELS: tl.constexpr,
):
    """Apply the transpose of bilinear sampling: add the values of each position to its neighbors by their weights."""
    upper = map_ptr + index[:, None] * CHANNELS + channel[None, :]
    lower = upper + width.to(tl.int64) * CHANNELS
    known = (channel < CHANNELS)[None, :]
    # Programs only add here, so their order does not matter.
    weights = ((1 - below) * (1 - right))[:, None]
    tl.atomic_add(upper, weights * values, mask=(in_top & in_left)[:, None] & known, sem="relaxed")
    weights = ((1 - below) * right)[:, None]
    tl.atomic_add(upper + CHANNELS, weights * values, mask=(in_top & in_right)[:, None] & known, sem="relaxed")
    weights = (below * (1 - right))[:, None]
    tl.atomic_add(lower, weights * values, mask=(in_bottom & in_left)[:, None] & known, sem="relaxed")
    weights = (below * right)[:, None]
    tl.atomic_add(lower + CHANNELS, weights * values, mask=(in_bottom & in_right)[:, None] & known, sem="relaxed")


@jit
def sample(
    map_ptr,
    index,
    below,
    right,
    modulation,
    in_top,
    in_bottom,
    in_left,
    in_right,
    channel,
    width,
    CHANNELS: tl.constexpr,
    FLOAT: tl.constexpr,
):
    """Compute bilinear samples times modulation, of shape (positions, channels of the block)."""
    upper_left, upper_right, lower_left, lower_right = load_neighbours(
        map_ptr, index, in_top, in_bottom, in_left, in_right, channel, width, CHANNELS, FLOAT
    )
    upper, lower = (1 - below) * modulation, below * modulation
    sampled = (upper * (1 - right))[:, None] * upper_left
    sampled += (upper * right)[:, None] * upper_right
    sampled += (lower * (1 - right))[:, None] * lower_left
    sampled += (lower * right)[:, None] * lower_right
    return sampled


@jit
def forward_kernel(
    map_ptr,
    offsets_ptr,
    modulation_ptr,
    weight_ptr,
    output_ptr,
    offsets_image,
    offsets_channel,
    offsets_row,
    offsets_column,
    modulation_image,
    modulation_channel,
    modulation_row,
    modulation_column,
    first_row,
    rows,
    height,
    width,
    CHANNELS: tl.constexpr,
    OUT_CHANNELS: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    TILE_HEIGHT: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_OUT_CHANNELS: tl.constexpr,
    FLOAT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a tile of positions and a block of output channels, over all taps and channels."""
    image, row, column, exists = tile_positions(tl.program_id(0), rows, width, TILE_HEIGHT, TILE_WIDTH)
    map_ptr += image * height * width * CHANNELS
    offsets_ptr += image * offsets_image + row * offsets_row + column * offsets_column
    modulation_ptr += image * modulation_image + row * modulation_row + column * modulation_column
    out_channel = tl.program_id(1) * BLOCK_OUT_CHANNELS + tl.arange(0, BLOCK_OUT_CHANNELS)
    out_known = (out_channel < OUT_CHANNELS)[None, :]

    total = tl.zeros((TILE_HEIGHT * TILE_WIDTH, BLOCK_OUT_CHANNELS), FLOAT)
    for tap in range(KERNEL_SIZE * KERNEL_SIZE):
        index, below, right, modulation, in_top, in_bottom, in_left, in_right = sampling_plan(
            offsets_ptr,
            offsets_channel,
            modulation_ptr,
            modulation_channel,
            tap,
            row + first_row,
            column,
            exists,
            height,
            width,
            KERNEL_SIZE,
            FLOAT,
        )
        for first_channel in range(0, CHANNELS, BLOCK_CHANNELS):
            channel = first_channel + tl.arange(0, BLOCK_CHANNELS)
            sampled = sample(
                map_ptr,
                index,
                below,
                right,
                modulation,
                in_top,
                in_bottom,
                in_left,
                in_right,
                channel,
                width,
                CHANNELS,
                FLOAT,
            )
            weight = tl.load(
                weight_ptr + (tap * CHANNELS + channel)[:, None] * OUT_CHANNELS + out_channel[None, :],
                mask=(channel < CHANNELS)[:, None] & out_known,
                other=0,
            )
            total = tl.dot(sampled.to(weight.dtype), weight, total, input_precision=PRECISION, out_dtype=FLOAT)

    position = (image * rows + row) * width + column
    tl.store(
        output_ptr + position[:, None] * OUT_CHANNELS + out_channel[None, :],
        total.to(output_ptr.dtype.element_ty),
        mask=exists[:, None] & out_known,
    )


@jit
def sampling_backward_kernel(
    grad_output_ptr,
    map_ptr,
    offsets_ptr,
    modulation_ptr,
    weight_ptr,
    grad_map_ptr,
    grad_offsets_ptr,
    grad_modulation_ptr,
    offsets_image,
    offsets_channel,
    offsets_row,
    offsets_column,
    modulation_image,
    modulation_channel,
    modulation_row,
    modulation_column,
    first_row,
    rows,
    height,
    width,
    NEEDS_MAP: tl.constexpr,
    NEEDS_PLAN: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUT_CHANNELS: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    TILE_HEIGHT: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_OUT_CHANNELS: tl.constexpr,
    FLOAT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradients of the map, the offsets and the modulation for a tile of positions and one tap."""
    image, row, column, exists = tile_positions(tl.program_id(0), rows, width, TILE_HEIGHT, TILE_WIDTH)
    tap = tl.program_id(1)
    map_ptr += image * height * width * CHANNELS
    grad_map_ptr += image * height * width * CHANNELS
    offsets_ptr += image * offsets_image + row * offsets_row + column * offsets_column
    modulation_ptr += image * modulation_image + row * modulation_row + column * modulation_column
    position = (image * rows + row) * width + column
    index, below, right, modulation, in_top, in_bottom, in_left, in_right = sampling_plan(
        offsets_ptr,
        offsets_channel,
        modulation_ptr,
        modulation_channel,
        tap,
        row + first_row,
        column,
        exists,
        height,
        width,
        KERNEL_SIZE,
        FLOAT,
    )

    # Gradients of the four neighbors' weights before modulation, from which those of the plan are computed.
    grad_upper_left = tl.zeros((TILE_HEIGHT * TILE_WIDTH,), FLOAT)
    grad_upper_right = tl.zeros((TILE_HEIGHT * TILE_WIDTH,), FLOAT)
    grad_lower_left = tl.zeros((TILE_HEIGHT * TILE_WIDTH,), FLOAT)
    grad_lower_right = tl.zeros((TILE_HEIGHT * TILE_WIDTH,), FLOAT)
    for first_channel in range(0, CHANNELS, BLOCK_CHANNELS):
        channel = first_channel + tl.arange(0, BLOCK_CHANNELS)
        grad_sampled = tl.zeros((TILE_HEIGHT * TILE_WIDTH, BLOCK_CHANNELS), FLOAT)
        for first_out_channel in range(0, OUT_CHANNELS, BLOCK_OUT_CHANNELS):
            out_channel = first_out_channel + tl.arange(0, BLOCK_OUT_CHANNELS)
            out_known = (out_channel < OUT_CHANNELS)[None, :]
            grad_output = tl.load(
                grad_output_ptr + position[:, None] * OUT_CHANNELS + out_channel[None, :],
                mask=exists[:, None] & out_known,
                other=0,
            )
            weight = tl.load(
                weight_ptr + (tap * CHANNELS + channel)[:, None] * OUT_CHANNELS + out_channel[None, :],
                mask=(channel < CHANNELS)[:, None] & out_known,
                other=0,
            )
            grad_sampled = tl.dot(
                grad_output, tl.trans(weight), grad_sampled, input_precision=PRECISION, out_dtype=FLOAT
            )
        if NEEDS_PLAN:
            upper_left, upper_right, lower_left, lower_right = load_neighbours(
                map_ptr, index, in_top, in_bottom, in_left, in_right, channel, width, CHANNELS, FLOAT
            )
            grad_upper_left += tl.sum(upper_left * grad_sampled, axis=1)
            grad_upper_right += tl.sum(upper_right * grad_sampled, axis=1)
            grad_lower_left += tl.sum(lower_left * grad_sampled, axis=1)
            grad_lower_right += tl.sum(lower_right * grad_sampled, axis=1)
        if NEEDS_MAP:
            add_to_neighbours(
                grad_map_ptr,
                index,
                in_top,
                in_bottom,
                in_left,
                in_right,
                below,
                right,
                channel,
                width,
                modulation[:, None] * grad_sampled,
                CHANNELS,
            )

    if NEEDS_PLAN:
        grad_upper = (1 - right) * grad_upper_left + right * grad_upper_right
        grad_lower = (1 - right) * grad_lower_left + right * grad_lower_right
        grad_x = (1 - below) * (grad_upper_right - grad_upper_left) + below * (grad_lower_right - grad_lower_left)
        taps = KERNEL_SIZE * KERNEL_SIZE
        grad_modulation_ptr += ((image * taps + tap) * rows + row) * width + column
        grad_offsets_ptr += ((image * taps + tap) * 2 * rows + row) * width + column
        tl.store(grad_modulation_ptr, (1 - below) * grad_upper + below * grad_lower, mask=exists)
        tl.store(grad_offsets_ptr, modulation * (grad_lower - grad_upper), mask=exists)
        tl.store(grad_offsets_ptr + rows.to(tl.int64) * width, modulation * grad_x, mask=exists)


@jit
def weight_backward_kernel(
    grad_output_ptr,
    map_ptr,
    offsets_ptr,
    modulation_ptr,
    partial_ptr,
    offsets_image,
    offsets_channel,
    offsets_row,
    offsets_column,
    modulation_image,
    modulation_channel,
    modulation_row,
    modulation_column,
    first_row,
    rows,
    height,
    width,
    num_tiles,
    CHANNELS: tl.constexpr,
    OUT_CHANNELS: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    TILE_HEIGHT: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_OUT_CHANNELS: tl.constexpr,
    FLOAT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute a partial sum of the weight's gradient: every n-th tile of positions, one tap, one block of channels."""
    tap = tl.program_id(1)
    blocks = tl.cdiv(CHANNELS, BLOCK_CHANNELS)
    channel = tl.program_id(2) % blocks * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    out_channel = tl.program_id(2) // blocks * BLOCK_OUT_CHANNELS + tl.arange(0, BLOCK_OUT_CHANNELS)

    total = tl.zeros((BLOCK_OUT_CHANNELS, BLOCK_CHANNELS), FLOAT)
    for tile in range(tl.program_id(0), num_tiles, tl.num_programs(0)):
        image, row, column, exists = tile_positions(tile, rows, width, TILE_HEIGHT, TILE_WIDTH)
        index, below, right, modulation, in_top, in_bottom, in_left, in_right = sampling_plan(
            offsets_ptr + image * offsets_image + row * offsets_row + column * offsets_column,
            offsets_channel,
            modulation_ptr + image * modulation_image + row * modulation_row + column * modulation_column,
            modulation_channel,
            tap,
            row + first_row,
            column,
            exists,
            height,
            width,
            KERNEL_SIZE,
            FLOAT,
        )
        sampled = sample(
            map_ptr + image * height * width * CHANNELS,
            index,
            below,
            right,
            modulation,
            in_top,
            in_bottom,
            in_left,
            in_right,
            channel,
            width,
            CHANNELS,
            FLOAT,
        )
        position = (image * rows + row) * width + column
        grad_output = tl.load(
            grad_output_ptr + position[:, None] * OUT_CHANNELS + out_channel[None, :],
            mask=exists[:, None] & (out_channel < OUT_CHANNELS)[None, :],
            other=0,
        )
        total = tl.dot(
            tl.trans(grad_output), sampled.to(grad_output.dtype), total, input_precision=PRECISION, out_dtype=FLOAT
        )

    part = tl.program_id(0) * KERNEL_SIZE * KERNEL_SIZE + tap
    tl.store(
        partial_ptr + (part * OUT_CHANNELS + out_channel)[:, None] * CHANNELS + channel[None, :],
        total,
        mask=(out_channel < OUT_CHANNELS)[:, None] & (channel < CHANNELS)[None, :],
    )


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type of positions and sums: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def padded_channels(num_channels: int, dtype: torch.dtype) -> int:
    """Return the channels per position of a map in memory, padded so that positions are aligned for vector loads."""
    per_vector = VECTOR_BYTES // dtype.itemsize
    return -(-num_channels // per_vector) * per_vector


def block_channels(channels: int, widest: int) -> int:
    """Choose the block width: wide blocks read longer runs of memory, narrow ones waste fewer padded channels."""
    padded = {size: -(-channels // size) * size for size in (16, 32, 64) if size <= widest}
    return max(size for size in padded if padded[size] <= 1.25 * min(padded.values()))


def product_precision() -> str:
    """Return how tensor cores may multiply float32, following the setting of PyTorch's matrix products."""
    matmul = torch.backends.cuda.matmul
    # The older of the two settings raises an error once the newer one was used.
    allowed = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    return "tf32" if allowed else "ieee"


def constants(hidden_states: torch.Tensor, weight: torch.Tensor, widest_block: int | None = None) -> dict[str, Any]:
    """Return the constants of a kernel. Tensor cores need blocks that are powers of two of at least 16."""
    dtype, out_channels = hidden_states.dtype, weight.shape[0]
    channels = padded_channels(weight.shape[1], dtype)
    return {
        "CHANNELS": channels,
        "OUT_CHANNELS": out_channels,
        "KERNEL_SIZE": weight.shape[2],
        "TILE_HEIGHT": TILE_HEIGHT,
        "TILE_WIDTH": TILE_WIDTH,
        "FLOAT": tl.float64 if dtype == torch.float64 else tl.float32,
        "PRECISION": product_precision(),
        "BLOCK_CHANNELS": block_channels(channels, widest_block or MAX_BLOCK_BYTES // dtype.itemsize),
        "BLOCK_OUT_CHANNELS": max(16, 1 << (min(out_channels, MAX_BLOCK_OUT_CHANNELS) - 1).bit_length()),
        "num_warps": 8,
        # Other programs on the same processor hide the latency of the gathers; more stages would displace them.
        "num_stages": 1,
        # Fewer instructions and roundings; since 3.10 Triton does not fuse products and sums by default.
        "enable_fp_fusion": True,
    }


def channels_last_map(hidden_states: torch.Tensor) -> torch.Tensor:
    """Return the map as (batch, height, width, padded channels), without a copy if its memory has this layout."""
    batch_size, num_channels, height, width = hidden_states.shape
    padded = padded_channels(num_channels, hidden_states.dtype)
    positions = hidden_states.permute(0, 2, 3, 1)
    if padded == num_channels:
        return positions.contiguous()
    copy = positions.new_empty(batch_size, height, width, padded)
    copy[..., :num_channels] = positions
    copy[..., num_channels:] = 0
    return copy


def kernel_per_tap(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the weight as (taps, padded channels, out_channels)."""
    out_channels, num_channels, kernel_size, _ = weight.shape
    taps = weight.permute(2, 3, 1, 0).reshape(kernel_size * kernel_size, num_channels, out_channels)
    padding = padded_channels(num_channels, dtype) - num_channels
    return torch.nn.functional.pad(taps.to(dtype), (0, 0, 0, padding)).contiguous()


def new_output(hidden_states: torch.Tensor, offsets: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Allocate an output of zeros: (batch, out_channels, rows, width), channels-last in memory."""
    batch_size, _, rows, width = offsets.shape
    return hidden_states.new_zeros(batch_size, rows, width, weight.shape[0]).permute(0, 3, 1, 2)


def new_sampling_gradients(
    hidden_states: torch.Tensor, offsets: torch.Tensor, modulation: torch.Tensor, needs_map: bool, needs_plan: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Allocate zeros for the gradients of the channels-last map, the offsets and the modulation; gradients that are not
    needed are empty, because an operator cannot return None.
    """
    batch_size, num_channels, height, width = hidden_states.shape
    map_shape = (batch_size, height, width, padded_channels(num_channels, hidden_states.dtype))
    dtype = accumulation_dtype(hidden_states.dtype)
    return (
        hidden_states.new_zeros(map_shape if needs_map else 0, dtype=dtype),
        offsets.new_zeros(offsets.shape if needs_plan else 0),
        modulation.new_zeros(modulation.shape if needs_plan else 0),
    )


def count_tiles(offsets: torch.Tensor) -> int:
    """Count the tiles of positions of all images."""
    batch_size, _, rows, width = offsets.shape
    return batch_size * triton.cdiv(rows, TILE_HEIGHT) * triton.cdiv(width, TILE_WIDTH)


def launch_device(hidden_states: torch.Tensor) -> AbstractContextManager:
    """Make the tensors' GPU current, where Triton starts its kernels; refuse inputs that kernels cannot compute."""
    require_triton()
    if isinstance(forward_kernel, triton.JITFunction):
        if hidden_states.device.type == "cpu":
            raise ValueError(
                "Triton's kernels run on GPUs, but `hidden_states` is on the CPU: move it to a GPU, or set "
                "TRITON_INTERPRET=1 before the import to run them, slowly, on the CPU."
            )
        if hidden_states.dtype == torch.float64:
            raise ValueError("There is no kernel for float64 on GPUs; use `torchvision.ops.deform_conv2d` or float32.")
    return torch.cuda.device_of(hidden_states)


@jit
def probe_kernel(value_ptr):
    """Write to a value."""
    tl.store(value_ptr, 1)


def launch_probe():
    """Compile and run the smallest kernel on the current GPU; raises whatever Triton raises where it cannot."""
    value = torch.zeros(1, dtype=torch.int32, device="cuda")
    probe_kernel[(1,)](value)
    torch.cuda.synchronize()


def require_triton():
    if not is_triton_available():
        raise ImportError("`triton_deform_conv2d` needs Triton: install it with `pip install triton`.")


@torch.library.custom_op(f"{NAMESPACE}::modulated_deform_conv2d", mutates_args=())
def modulated_deform_conv2d(
    hidden_states: torch.Tensor, offsets: torch.Tensor, modulation: torch.Tensor, weight: torch.Tensor, first_row: int
) -> torch.Tensor:
    """Run the operator behind [`triton_deform_conv2d`]."""
    output = new_output(hidden_states, offsets, weight)
    with launch_device(hidden_states):
        if output.numel() == 0 or hidden_states.numel() == 0:
            return output
        options = constants(hidden_states, weight)
        grid = (count_tiles(offsets), triton.cdiv(weight.shape[0], options["BLOCK_OUT_CHANNELS"]))
        forward_kernel[grid](
            channels_last_map(hidden_states),
            offsets,
            modulation,
            kernel_per_tap(weight, hidden_states.dtype),
            output,
            *offsets.stride(),
            *modulation.stride(),
            first_row,
            offsets.shape[2],
            *hidden_states.shape[2:],
            **options,
        )
    return output


@modulated_deform_conv2d.register_fake
def _(hidden_states, offsets, modulation, weight, first_row):
    return new_output(hidden_states, offsets, weight)


@torch.library.custom_op(f"{NAMESPACE}::modulated_deform_conv2d_sampling_backward", mutates_args=())
def sampling_backward(
    grad_output: torch.Tensor,
    hidden_states: torch.Tensor,
    offsets: torch.Tensor,
    modulation: torch.Tensor,
    weight: torch.Tensor,
    first_row: int,
    needs_map: bool,
    needs_plan: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the gradients of the channels-last map, in float32, of the offsets and of the modulation."""
    gradients = new_sampling_gradients(hidden_states, offsets, modulation, needs_map, needs_plan)
    with launch_device(hidden_states):
        if grad_output.numel() == 0 or hidden_states.numel() == 0:
            return gradients
        sampling_backward_kernel[count_tiles(offsets), weight.shape[2] * weight.shape[3]](
            grad_output.permute(0, 2, 3, 1).contiguous(),
            channels_last_map(hidden_states),
            offsets,
            modulation,
            kernel_per_tap(weight, hidden_states.dtype),
            *gradients,
            *offsets.stride(),
            *modulation.stride(),
            first_row,
            offsets.shape[2],
            *hidden_states.shape[2:],
            NEEDS_MAP=needs_map,
            NEEDS_PLAN=needs_plan,
            **constants(hidden_states, weight, MAX_BLOCK_CHANNELS_IN_BACKWARD),
        )
    return gradients


@sampling_backward.register_fake
def _(grad_output, hidden_states, offsets, modulation, weight, first_row, needs_map, needs_plan):
    return new_sampling_gradients(hidden_states, offsets, modulation, needs_map, needs_plan)


@torch.library.custom_op(f"{NAMESPACE}::modulated_deform_conv2d_weight_backward", mutates_args=())
def weight_backward(
    grad_output: torch.Tensor,
    hidden_states: torch.Tensor,
    offsets: torch.Tensor,
    modulation: torch.Tensor,
    weight: torch.Tensor,
    first_row: int,
) -> torch.Tensor:
    """Compute the gradient of the weight from partial sums over tiles, in a fixed order."""
    out_channels, num_channels, kernel_size, _ = weight.shape
    with launch_device(hidden_states):
        if grad_output.numel() == 0 or hidden_states.numel() == 0:
            return torch.zeros_like(weight, memory_format=torch.contiguous_format)
        options = constants(hidden_states, weight)
        num_tiles, num_taps = count_tiles(offsets), kernel_size * kernel_size
        blocks = triton.cdiv(options["CHANNELS"], options["BLOCK_CHANNELS"])
        blocks *= triton.cdiv(out_channels, options["BLOCK_OUT_CHANNELS"])
        num_parts = min(num_tiles, triton.cdiv(WEIGHT_GRADIENT_PROGRAMS, num_taps * blocks))
        partial = hidden_states.new_empty(
            (num_parts, num_taps, out_channels, options["CHANNELS"]), dtype=accumulation_dtype(hidden_states.dtype)
        )
        weight_backward_kernel[num_parts, num_taps, blocks](
            grad_output.permute(0, 2, 3, 1).contiguous(),
            channels_last_map(hidden_states),
            offsets,
            modulation,
            partial,
            *offsets.stride(),
            *modulation.stride(),
            first_row,
            offsets.shape[2],
            *hidden_states.shape[2:],
            num_tiles,
            **options,
        )
    taps = partial.sum(dim=0)[..., :num_channels].permute(1, 2, 0).reshape(weight.shape)
    return taps.to(weight.dtype).contiguous()


@weight_backward.register_fake
def _(grad_output, hidden_states, offsets, modulation, weight, first_row):
    return torch.empty_like(weight, memory_format=torch.contiguous_format)


def save_inputs(ctx, inputs: tuple, output: torch.Tensor):
    *tensors, ctx.first_row = inputs
    ctx.save_for_backward(*tensors)


def backward(ctx, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    hidden_states, offsets, modulation, weight = inputs = ctx.saved_tensors
    needs_map, needs_offsets, needs_modulation, needs_weight, _ = ctx.needs_input_grad
    needs_plan = needs_offsets or needs_modulation
    grad_hidden_states = grad_offsets = grad_modulation = grad_weight = None
    if needs_map or needs_plan:
        grad_map, grad_offsets, grad_modulation = sampling_backward(
            grad_output, *inputs, ctx.first_row, needs_map, needs_plan
        )
    if needs_map:
        grad_hidden_states = grad_map[..., : hidden_states.shape[1]].permute(0, 3, 1, 2).to(hidden_states.dtype)
    if needs_weight:
        grad_weight = weight_backward(grad_output, *inputs, ctx.first_row)
    return (
        grad_hidden_states,
        grad_offsets if needs_offsets else None,
        grad_modulation if needs_modulation else None,
        grad_weight,
        None,
    )


modulated_deform_conv2d.register_autograd(backward, setup_context=save_inputs)


def triton_deform_conv2d(
    hidden_states: torch.Tensor,
    offsets: torch.Tensor,
    modulation: torch.Tensor,
    weight: torch.Tensor,
    first_row: int = 0,
) -> torch.Tensor:
    """
    Compute a modulated deformable convolution (Deformable ConvNets v2, arXiv:1811.11168, Eq. 1) with stride 1, "same"
    zero padding, one deformable group and no bias, for a band of rows of a map. For the complete map it equals
    `torchvision.ops.deform_conv2d(hidden_states, offsets, weight, padding=k // 2, mask=modulation)`, without the
    samples of all positions in memory.

    Sampling is bilinear, with zeros outside the map. A tap at NaN or at an infinite position reads nothing and gets no
    gradient. Positions and sums are in float32 (float64 for float64), products in the type of `hidden_states`; float32
    is multiplied in TF32 only if PyTorch's matrix products are. The gradient of `hidden_states` is summed in varying
    order, so its last bits vary too. The operator has no second derivative.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, in_channels, map_height, width)`):
            The map, of any float type. Copied unless its memory format is channels-last and `in_channels` fill a
            multiple of 16 bytes.
        offsets (`torch.Tensor` of shape `(batch_size, 2 * k * k, rows, width)`):
            Offsets in pixels, of any float type (half precision rounds positions); channels `2 t` and `2 t + 1` move
            tap `t` (row-major) down and to the right.
        modulation (`torch.Tensor` of shape `(batch_size, k * k, rows, width)`): Factor of each tap, of any float type.
        weight (`torch.Tensor` of shape `(out_channels, in_channels, k, k)`):
            The kernel, with k odd. Rounded to the type of `hidden_states`.
        first_row (`int`, *optional*, defaults to 0): The row of the map on which the first row of the output lies.

    Returns:
        `torch.Tensor` of shape `(batch_size, out_channels, rows, width)`, in the type of `hidden_states` and in the
        channels-last memory format.

    Raises:
        ImportError: If Triton is not installed.
        ValueError: If shapes do not match, or there is no kernel for the device or type: kernels run on the CPU only
            with `TRITON_INTERPRET=1`, and float64 only on the CPU.
    """
    require_triton()
    check_shapes(hidden_states, offsets, modulation, weight)
    return modulated_deform_conv2d(hidden_states, offsets, modulation, weight, first_row)


def check_shapes(hidden_states: torch.Tensor, offsets: torch.Tensor, modulation: torch.Tensor, weight: torch.Tensor):
    """Raise a ValueError if the shapes do not match."""
    batch_size, in_channels, _, width = hidden_states.shape
    _, weight_channels, kernel_size, other_size = weight.shape
    if kernel_size != other_size or kernel_size % 2 == 0:
        raise ValueError(f"`weight` is {kernel_size} x {other_size}; the kernel must be square and its side odd.")
    if weight_channels != in_channels:
        raise ValueError(f"`weight` is for {weight_channels} channels, but `hidden_states` has {in_channels}.")
    num_taps, rows = kernel_size * kernel_size, offsets.shape[2]
    for name, tensor, channels in (("offsets", offsets, 2 * num_taps), ("modulation", modulation, num_taps)):
        if tuple(tensor.shape) != (batch_size, channels, rows, width):
            raise ValueError(
                f"`{name}` must have the shape {(batch_size, channels, rows, width)}, not {tuple(tensor.shape)}."
            )


__all__ = ["is_triton_available", "triton_deform_conv2d"]
