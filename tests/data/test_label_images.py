"""Test label maps as images with a palette."""

import numpy as np
import PIL.Image
import pytest

from transformers_massformer.data.label_images import class_palette, label_map_image


def test_palette_colours_differ():
    palette = class_palette(256)
    assert palette.dtype == np.uint8
    assert len(np.unique(palette[:150], axis=0)) == 150
    with pytest.raises(ValueError, match="256 colours, but there are 257"):
        class_palette(257)


def test_pixels_without_a_class_keep_their_value(tmp_path):
    label_map = np.array([[0, 6, 255], [255, 7, 1]], np.uint8)
    label_map_image(label_map, 8).save(tmp_path / "a.png")
    with PIL.Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), label_map)


def test_label_map_image_keeps_the_indices():
    label_map = np.arange(12).reshape(3, 4) % 7
    image = label_map_image(label_map, 7)
    assert np.array_equal(np.asarray(image), label_map)
    assert np.array_equal(np.asarray(image.convert("RGB")), class_palette(7)[label_map])
