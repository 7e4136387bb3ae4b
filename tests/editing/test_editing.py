"""Test overlays and legends."""

import numpy as np
import PIL.Image
import pytest

from transformers_massformer import MASS13K_LABELS
from transformers_massformer.data.label_images import class_palette
from transformers_massformer.editing import overlay_image, with_legend


def test_overlay():
    photo = PIL.Image.new("RGB", (4, 3), (200, 100, 0))
    label_map = np.full((3, 4), 5)
    assert np.array_equal(np.asarray(overlay_image(photo, label_map, 7, 0.0)), np.asarray(photo))
    assert (np.asarray(overlay_image(photo, label_map, 7, 1.0)) == class_palette(7)[5]).all()
    with pytest.raises(ValueError, match="has size 3 x 4, the photo 4 x 3"):
        overlay_image(photo.transpose(PIL.Image.Transpose.ROTATE_90), label_map, 7)


def test_a_legend_names_the_classes_present():
    label_map = np.zeros((90, 120), np.uint8)
    label_map[:60] = 5
    label_map[:3, :4] = 255
    picture = PIL.Image.new("RGB", (120, 90), (1, 2, 3))
    result = with_legend(picture, label_map, MASS13K_LABELS)
    assert result.width == 120
    assert np.array_equal(np.asarray(result)[:90], np.asarray(picture))
    legend = np.asarray(result)[90:].reshape(-1, 3)
    shown = {tuple(colour) for colour in legend.tolist()}
    palette = class_palette(7)
    assert tuple(palette[5].tolist()) in shown
    assert tuple(palette[0].tolist()) in shown
    assert not {tuple(palette[index].tolist()) for index in (1, 2, 3, 4, 6)} & shown
    # The largest class comes first.
    rows, columns = np.nonzero((np.asarray(result)[90:] == palette[5]).all(axis=2))
    other_rows, other_columns = np.nonzero((np.asarray(result)[90:] == palette[0]).all(axis=2))
    assert (rows.min(), columns.min()) < (other_rows.min(), other_columns.min())
