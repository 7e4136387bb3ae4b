import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_massformer.inference.tiling import plan_tiles, tile_spans


@given(st.integers(1, 500), st.integers(64, 200), st.one_of(st.none(), st.integers(0, 63)))
def test_tiles_cover_an_axis_once_and_overlap(length, tile, overlap):
    spans = tile_spans(length, tile, overlap)
    assert [kept for _, _, *span in spans for kept in range(*span)] == list(range(length))
    margin = (tile // 8 if overlap is None else overlap) // 2
    for start, stop, first, last in spans:
        assert 0 <= start <= first < last <= stop <= length
        assert stop - start == min(tile, length)
        # Kept pixels lie away from the tile's borders, except the image's own.
        assert start == 0 or first - start >= margin
        assert stop == length or stop - last >= margin


@given(st.integers(1, 300), st.integers(1, 300), st.integers(64, 128))
def test_every_pixel_belongs_to_one_tile(height, width, tile):
    owner = np.zeros((height, width), dtype=np.int64)
    image = np.arange(height * width).reshape(height, width)
    for each in plan_tiles(height, width, tile):
        left, top, right, bottom = each.box
        owner[each.kept] += 1
        # The same pixels, by the tile's own coordinates.
        assert np.array_equal(image[top:bottom, left:right][each.kept_in_tile], image[each.kept])
    assert (owner == 1).all()


@pytest.mark.parametrize("tile", [None, 200])
def test_without_tiles_or_with_large_ones_the_photograph_is_one(tile):
    ((rows, columns),) = plan_tiles(100, 200, tile)
    assert rows == (0, 100, 0, 100)
    assert columns == (0, 200, 0, 200)
