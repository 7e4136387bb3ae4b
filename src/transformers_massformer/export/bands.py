"""The half-resolution part of the network in bands of rows, as nodes of a graph for photographs of any size."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import deform_conv2d

from ..models.deform_conv import ModulatedDeformConv2d, finite_offsets, sampled_deform_conv2d
from ..models.modeling_massformer import MaSSFormerModel, halve, mask_logits, resize


# Numbers of bands. They divide the height of every half-resolution map, a multiple of 16, and leave each band enough
# rows for the halos of its convolutions.
DETAIL_BANDS, FEATURE_BANDS = 4, 8


@torch.library.custom_op("massformer::rows", mutates_args=())
def take_rows(feature_map: torch.Tensor, first: int, length: int) -> torch.Tensor:
    """
    Return rows of a map, a slice as an operator of its own: of slices with symbolic bounds, the exporter would derive
    expressions that grow with every operation.
    """
    return feature_map[:, :, first : first + length].clone()


@take_rows.register_fake
def _(feature_map: torch.Tensor, first: int, length: int) -> torch.Tensor:
    batch_size, num_channels, _, width = feature_map.shape
    return feature_map.new_empty(batch_size, num_channels, length, width)


@torch.library.custom_op("massformer::deform_conv_rows", mutates_args=())
def deform_conv_rows(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    offsets: torch.Tensor,
    modulation: torch.Tensor,
    bias: torch.Tensor,
    stride: int,
    padding: int,
) -> torch.Tensor:
    """
    Compute a deformable convolution with this vertical stride and padding; an operator of its own, because the
    operator's number of rows is that of the offsets.
    """
    return deform_conv2d(
        hidden_states,
        offsets,
        weight,
        bias,
        stride=(stride, 1),
        padding=(padding, weight.shape[3] // 2),
        mask=modulation,
    )


@deform_conv_rows.register_fake
def _(hidden_states, weight, offsets, modulation, bias, stride: int, padding: int) -> torch.Tensor:
    return hidden_states.new_empty(hidden_states.shape[0], weight.shape[0], *offsets.shape[2:])


def translations() -> dict[Any, Any]:
    """Return the translations of these operators to ONNX."""
    from onnxscript import opset19

    # Operators accept what the exporter passes for integers, which their annotations do not tell.
    op: Any = opset19

    # The exporter reads the types of the arguments from these annotations.
    def rows_to_onnx(feature_map, first: int, length: int):
        one = op.Constant(value_ints=[1])
        start = op.Reshape(first, one)
        return op.Slice(feature_map, start, op.Add(start, op.Reshape(length, one)), op.Constant(value_ints=[2]))

    def deform_conv_to_onnx(hidden_states, weight, offsets, modulation, bias, stride: int, padding: int):
        side = int(weight.shape[2])
        return op.DeformConv(
            hidden_states,
            weight,
            offsets,
            bias,
            modulation,
            kernel_shape=[side, side],
            strides=[stride, 1],
            pads=[padding, side // 2, padding, side // 2],
            dilations=[1, 1],
            group=1,
            offset_group=1,
        )

    operators = torch.ops.massformer
    return {operators.rows.default: rows_to_onnx, operators.deform_conv_rows.default: deform_conv_to_onnx}


@dataclass(frozen=True)
class Band:
    """
    A band of rows of a map.

    Args:
        index (`int`): Number of the band.
        count (`int`): Number of bands of the map.
        rows (`int`): Rows of each band; symbolic in graphs for any size.
    """

    index: int
    count: int
    rows: int

    @property
    def first(self) -> int:
        return self.index * self.rows

    def above(self, halo: int) -> int:
        """Return how many of the `halo` rows above the band the map has."""
        return 0 if self.index == 0 else halo

    def below(self, halo: int) -> int:
        return 0 if self.index == self.count - 1 else halo

    def length(self, halo: int) -> int:
        """Return the number of rows of the band with its halo."""
        return self.rows + self.above(halo) + self.below(halo)

    def cut(self, feature_map: torch.Tensor, halo: int = 0) -> torch.Tensor:
        """Return the rows of the band and of its halo."""
        first = self.first - self.above(halo)
        return take_rows(feature_map, first, self.length(halo))

    def upsample(self, feature_map: torch.Tensor, width: int, halo: int = 0) -> torch.Tensor:
        """Return the rows of the band and of its halo of a map resized to twice its size, of this width."""
        margin = halo // 2 + 1
        window = Band(self.index, self.count, self.rows // 2).cut(feature_map, margin)
        upsampled = resize(window, (2 * window.shape[-2], width))
        return take_rows(upsampled, self.above(2 * margin - halo), self.length(halo))

    def convolve(self, convolution: nn.Conv2d, window: torch.Tensor) -> torch.Tensor:
        """Convolve the band with its halo, which the output lacks; zeros are padded at the borders of the map only."""
        halo, padding = convolution.kernel_size[0] // 2, convolution.kernel_size[1] // 2
        window = F.pad(window, (0, 0, halo - self.above(halo), halo - self.below(halo)))
        return F.conv2d(window, convolution.weight, convolution.bias, padding=(0, padding))


def split_rows(height: int, count: int) -> list[Band]:
    """Split the rows of a map into bands."""
    return [Band(index, count, height // count) for index in range(count)]


def convolve_rows(
    layer: ModulatedDeformConv2d,
    hidden_states: torch.Tensor,
    offsets: torch.Tensor,
    modulation: torch.Tensor,
    band: Band,
    halo: int,
) -> torch.Tensor:
    """
    Compute a band of rows, and its halo, of a deformable convolution that reads the complete map. The operator returns
    as many rows as its stride and padding give; a vertical stride of the number of bands gives those of one band, and
    offsets move them to where they lie.
    """
    first, side = band.first - band.above(halo), layer.weight.shape[2]
    if layer.engine == "grid_sample":
        return sampled_deform_conv2d(hidden_states, offsets, modulation, layer.weight, layer.bias, first)
    dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    # The number of rows that is wanted beyond `band.rows` comes from the padding.
    extra = band.above(halo) + band.below(halo)
    padding = (band.count * extra + side - 1) // 2
    rows = torch.arange(band.rows + extra, dtype=dtype, device=offsets.device)
    shift = rows * (1 - band.count) + (first + padding - side // 2)
    is_vertical = torch.tensor([1, 0] * side**2, dtype=dtype, device=offsets.device)
    moved = finite_offsets(offsets.to(dtype), hidden_states) + is_vertical[:, None, None] * shift[:, None]
    bias = torch.zeros(layer.weight.shape[0], device=offsets.device) if layer.bias is None else layer.bias
    inputs = (hidden_states, layer.weight, moved, modulation, bias)
    output = deform_conv_rows(*(x.to(dtype) for x in inputs), band.count, padding)
    return output.to(hidden_states.dtype)


def deform_rows(layer: Any, hidden_states: torch.Tensor, band: Band, halo: int = 0) -> torch.Tensor:
    """Compute a band of rows, and its halo, of a `MaSSFormerDeformableConvLayer`."""
    window = band.cut(hidden_states, halo + layer.halo)
    # The rows of the halo have a halo of their own.
    wide = F.pad(window, (0, 0, layer.halo - band.above(layer.halo), layer.halo - band.below(layer.halo)))
    predicted = F.conv2d(wide, layer.offset.weight, layer.offset.bias, padding=(0, layer.halo))
    offsets, modulation = predicted.split((2 * layer.num_taps, layer.num_taps), dim=1)
    output = convolve_rows(layer.convolution, hidden_states, offsets, modulation.sigmoid(), band, halo)
    return layer.activation(layer.normalization(output))


def attend_rows(layer: Any, window: torch.Tensor, band: Band) -> torch.Tensor:
    """Apply a `MaSSFormerSpatialAttention` to a band with its halo, which the output lacks."""
    statistics = torch.cat((window.mean(dim=1, keepdim=True), window.amax(dim=1, keepdim=True)), dim=1)
    weights = band.convolve(layer.convolution, statistics.sigmoid())
    above = band.above(layer.halo)
    rows = take_rows(window, above, band.rows)
    return rows + rows * weights


def detail_rows(
    module: Any, image: torch.Tensor, deformed_input: torch.Tensor, low_level: torch.Tensor, bands: list[Band]
) -> Iterator[torch.Tensor]:
    """Yield the output of a `MaSSFormerLowLevelStructure` band by band."""
    halo = module.pointwise_attention.halo
    for band in bands:
        window = torch.cat((band.cut(image, halo), band.upsample(low_level, image.shape[-1], halo)), dim=1)
        pointwise = attend_rows(module.pointwise_attention, module.pointwise(window), band)
        deformed = deform_rows(module.deformable, deformed_input, band, halo)
        yield module.merge(pointwise, attend_rows(module.deformable_attention, deformed, band))


class BandedModel(MaSSFormerModel):
    """
    MaSSFormer whose half-resolution part is computed in bands of rows while it is exported. The bands are parts of the
    graph, so that a runtime frees the memory of one before the next.
    """

    def choose_bands(self, pixel_values: torch.Tensor) -> list[tuple[int, int]]:
        bands = split_rows(pixel_values.shape[-2] // 2, FEATURE_BANDS)
        return [(band.first, band.first + band.rows) for band in bands]

    def predict_in_bands(
        self, pixel_values: torch.Tensor, feature_maps: list[torch.Tensor], bands: Any, **kwargs: Any
    ) -> tuple[Any, torch.Tensor, Any]:
        """Compute the decoder's outputs and the mask logits; the edges are left out."""
        decoder, fusion = self.pixel_decoder, self.pixel_decoder.edge_guided_fusion
        memories, body, low_level = decoder.semantic_branch(feature_maps)
        height, width = pixel_values.shape[-2] // 2, pixel_values.shape[-1] // 2
        image = resize(pixel_values, (height, width))
        first, second = low_level.chunk(2, dim=1)
        deformed_input = torch.cat((image, resize(second, (height, width))), dim=1)

        kept, gated = [], []
        coarse = split_rows(height, DETAIL_BANDS)
        details = detail_rows(decoder.low_level_structure, image, deformed_input, first, coarse)
        for band, detail in zip(coarse, details, strict=True):
            gated.append(fusion.gate(detail, band.upsample(body, width)))
            kept.append(detail if fusion.has_residual else gated[-1])
        complete, gate = torch.cat(kept, dim=2), torch.cat(gated, dim=2)

        refined = torch.cat([deform_rows(fusion.deformable, gate, band) for band in coarse], dim=2)

        def feature_rows(band: Band) -> torch.Tensor:
            fused = fusion.merge(band.cut(refined), band.cut(complete), band.upsample(body, width))
            return decoder.mask_projection(fused)

        # Computed twice, in different bands: runtimes would join equal computations and keep the features.
        coarse_features = torch.cat([halve(feature_rows(band)) for band in coarse], dim=2)
        level_features = self.transformer_decoder.level_features(coarse_features)
        outputs = self.transformer_decoder(memories, level_features, return_dict=True, **kwargs)
        fine = split_rows(height, FEATURE_BANDS)
        masks = [mask_logits(outputs.mask_embeddings[-1], feature_rows(band)) for band in fine]
        return outputs, torch.cat(masks, dim=2), None


def use_bands(model: Any):
    """Let a `MaSSFormerForSemanticSegmentation` be exported in bands, in place."""
    model.model.__class__ = BandedModel
