import numpy as np
import PIL.Image
import pytest

from transformers_massformer.editing import class_palette, label_map_image, overlay_image


def test_palette_colours_differ():
    palette = class_palette(256)
    assert palette.dtype == np.uint8
    assert len(np.unique(palette[:150], axis=0)) == 150
    with pytest.raises(ValueError, match="256 colours, but there are 257"):
        class_palette(257)


def test_pixels_without_a_class_stay_so(tmp_path):
    label_map = np.array([[0, 6, 255], [255, 7, 1]], np.uint8)
    label_map_image(label_map, 8).save(tmp_path / "a.png")
    with PIL.Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), label_map)


def test_label_map_image_keeps_the_indices():
    label_map = np.arange(12).reshape(3, 4) % 7
    image = label_map_image(label_map, 7)
    assert np.array_equal(np.asarray(image), label_map)
    assert np.array_equal(np.asarray(image.convert("RGB")), class_palette(7)[label_map])


def test_overlay():
    photo = PIL.Image.new("RGB", (4, 3), (200, 100, 0))
    label_map = np.full((3, 4), 5)
    assert np.array_equal(np.asarray(overlay_image(photo, label_map, 7, 0.0)), np.asarray(photo))
    assert (np.asarray(overlay_image(photo, label_map, 7, 1.0)) == class_palette(7)[5]).all()
    with pytest.raises(ValueError, match="3 x 4, must be of the photograph's size, 4 x 3"):
        overlay_image(photo.transpose(PIL.Image.Transpose.ROTATE_90), label_map, 7)
