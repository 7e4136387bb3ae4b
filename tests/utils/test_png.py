import io

import numpy as np
import PIL.Image
import pytest

from transformers_massformer.data.label_images import label_map_image
from transformers_massformer.utils.png import write_png


def picture(mode):
    """Return a picture of a photograph's kind: smooth, with noise and an edge."""
    y, x = np.mgrid[:96, :128]
    noise = np.random.default_rng(0).normal(0, 2, (96, 128, 4))
    values = np.stack([x + y, 2 * y, 255 - x, 255 * (x > 60)], axis=-1) + noise
    image = PIL.Image.fromarray(values.clip(0, 255).astype(np.uint8), "RGBA")
    if mode == "P":
        return label_map_image((values[..., 0] // 64).clip(0, 3).astype(np.uint8))
    return image if mode == "RGBA" else image.convert(mode)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
def test_pixels_stay_and_files_are_about_as_small_as_by_default(mode, tmp_path):
    image, usual = picture(mode), io.BytesIO()
    # The suffix of a temporary file says nothing about the format.
    write_png(image, tmp_path / "x.partial")
    image.save(usual, format="PNG")
    with PIL.Image.open(tmp_path / "x.partial") as found:
        assert (found.format, found.mode) == ("PNG", mode)
        assert found.tobytes() == image.tobytes()
    assert (tmp_path / "x.partial").stat().st_size < 1.25 * len(usual.getvalue())
