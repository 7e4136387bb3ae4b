"""Weights and inputs computed from names and shapes alone, for comparison with the authors' code."""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import torch


DATA = Path(__file__).parents[1] / "data"
MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])

# (pattern of the name, gain) for weights of rank 2 and above; the last match decides.
GAINS = [
    (r"downsample\.0", 0.8),
    (r"dcn_offset", 0.7),
    (r"\.dcn\.weight$|up_sample", 2.0),
    (r"in_proj_weight", 1.5),
    (r"ffn", 0.6),
    (r"transformer_decoder.*ffn", 0.3),
    (r"out_proj", 0.6),
    (r"transformer_decoder.*out_proj", 0.1),
    (r"mask_embed\.4\.weight", 0.4),
    (r"cls_embed\.weight", 2.0),
]


def hash24(seed: int, count: int) -> np.ndarray:
    """Compute `count` integers below 2 ** 24 (splitmix64's finalizer over a counter)."""
    with np.errstate(over="ignore"):
        counter = np.uint64(seed << 32) + np.arange(1, count + 1, dtype=np.uint64)
        z = counter * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.int64)


def uniform(seed: int, count: int) -> np.ndarray:
    """Compute float64 values in (-1, 1) that are exact in float32."""
    return (2 * hash24(seed, count) + 1 - 2**24) / 2.0**24


def offset_and_scale(name: str, shape: tuple[int, ...], last_norm: str) -> tuple[float, float]:
    kind = name.rsplit(".", 1)[-1]
    if kind == "running_mean":
        return 0.0, 0.2
    if kind == "running_var":
        return 1.0, 0.5
    if len(shape) == 1 and kind == "weight":
        ends_residual_branch = re.search(rf"^backbone\.layer\d\.\d+\.{last_norm}\.weight$", name)
        return (0.3, 0.1) if ends_residual_branch else (1.0, 0.25)
    if len(shape) == 1:
        return 0.0, 0.75 if "dcn_offset" in name else 1.0 if "cls_embed" in name else 0.1
    if re.search(r"query_feat|query_embed", name):
        return 0.0, 3**0.5
    if "level_embed" in name:
        return 0.0, 0.5 * 3**0.5
    fan_in = shape[0] * shape[2] * shape[3] / 4 if "up_sample" in name else np.prod(shape[1:])
    gain = 1.25 if len(shape) == 4 else 1.0
    for pattern, value in GAINS:
        if re.search(pattern, name):
            gain = value
    return 0.0, 3**0.5 * gain / fan_in**0.5


def golden_tensor(name: str, shape: list[int], last_norm: str) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    offset, scale = offset_and_scale(name, tuple(shape), last_norm)
    values = offset + scale * uniform(zlib.crc32(name.encode()), int(np.prod(shape)))
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def golden_state_dict(variant: str) -> dict[str, torch.Tensor]:
    """Create weights under the authors' names, for "r50" or "r18lite"."""
    keys = json.loads((DATA / f"official_keys_{variant}.json").read_text())
    last_norm = {"r50": "bn3", "r18lite": "bn2"}[variant]
    return {name: golden_tensor(name, shape, last_norm) for name, shape in keys}


# (end of the name, gain) for SeMask's weights of rank 2 and above; the first match decides.
SEMASK_GAINS = [
    ("attn.qkv.weight", 1.3),
    ("mlp.fc2.weight", 0.8),
    ("mlp_v.weight", 1.2),
    ("mlp_res.weight", 1.6),
    (".conv.weight", 1.3),
    ("conv_seg.weight", 2.0),
]


def semask_offset_and_scale(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    kind = name.rsplit(".", 1)[-1]
    fixed = {"running_mean": (0.0, 0.2), "running_var": (1.0, 0.5), "gamma": (0.6, 0.2)}
    if kind in fixed:
        return fixed[kind]
    if kind == "relative_position_bias_table":
        return 0.0, 1.0
    if len(shape) == 1:
        wide = re.search(r"(mlp_cls_[qk]|conv_seg)\.bias$", name)
        return (1.0, 0.25) if kind == "weight" else (0.0, 0.3 if wide else 0.1)
    gain = next((gain for end, gain in SEMASK_GAINS if name.endswith(end)), 1.0)
    if re.search(r"mlp_cls_[qk]\.weight$", name):
        gain = 2.5 / shape[0] ** 0.25
    return 0.0, 3**0.5 * gain / np.prod(shape[1:]) ** 0.5


def semask_golden_state_dict() -> dict[str, torch.Tensor]:
    """Create weights of a SeMask-T FPN for seven classes under its authors' names, without constant buffers."""
    weights = {}
    for name, shape in json.loads((DATA / "semask_keys_tiny7.json").read_text()):
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.zeros(shape, dtype=torch.int64)
        elif not name.endswith("relative_position_index"):
            offset, scale = semask_offset_and_scale(name, tuple(shape))
            values = offset + scale * uniform(zlib.crc32(name.encode()), int(np.prod(shape)))
            weights[name] = torch.from_numpy(values.reshape(shape).astype(np.float32))
    return weights


def golden_image(height: int, width: int, seed: int) -> np.ndarray:
    """Create a uint8 RGB image of blocks of 32 and 8 pixels and noise."""
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]

    def plane(block: int, plane_seed: int, levels: int) -> np.ndarray:
        rows, columns = -(-height // block), -(-width // block)
        values = (hash24(plane_seed, rows * columns * 3) * levels >> 24).reshape(rows, columns, 3)
        return values[y // block, x // block]

    image = plane(32, 3 * seed + 1, 176) + plane(8, 3 * seed + 2, 56) + plane(1, 3 * seed + 3, 24)
    return image.astype(np.uint8)


def golden_pixel_values(height: int, width: int, seeds: list[int]) -> torch.Tensor:
    images = np.stack([(golden_image(height, width, seed) - MEAN) / STD for seed in seeds])
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32))


def golden_labels(height: int, width: int, seed: int, block: int) -> np.ndarray:
    """Create uint8 labels 0 to 6 in square blocks, about one in sixteen of them 255."""
    rows, columns = -(-height // block), -(-width // block)
    values = hash24(seed, rows * columns)
    labels = np.where(values % 16 == 0, 255, values * 7 >> 24).reshape(rows, columns)
    y, x = np.arange(height)[:, None] // block, np.arange(width)[None, :] // block
    return labels[y, x].astype(np.uint8)


def subsample(tensor: torch.Tensor, limit: int = 8192) -> torch.Tensor:
    """Pick every n-th value of a large tensor, as stored in the golden files."""
    step = max(1, tensor.numel() // limit) | 1
    return tensor.reshape(-1)[::step]
