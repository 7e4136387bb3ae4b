"""The pictures that `scripts/docs` draws from photographs."""

import numpy as np
import photo_examples
import PIL.Image
import pytest
import readme_image
from support import ROOT

from transformers_massformer import MASS13K_LABELS, open_image


def test_the_readme_picture_shows_the_detail_at_full_size():
    photo = open_image(readme_image.PHOTO)
    label_map = np.full((photo.height, photo.width), MASS13K_LABELS.index("sky"), dtype=np.uint8)
    picture = np.asarray(readme_image.compose(photo, label_map))
    left, top = readme_image.DETAIL
    inner = photo.crop((left, top, left + readme_image.WIDTH, top + readme_image.DETAIL_HEIGHT))
    y = photo.height * readme_image.WIDTH // photo.width + readme_image.GAP
    assert (picture[y : y + readme_image.DETAIL_HEIGHT, : readme_image.WIDTH] == np.asarray(inner)).all()
    # The overlay is half a photograph.
    x = readme_image.WIDTH + readme_image.GAP
    detail = picture[y : y + readme_image.DETAIL_HEIGHT, x : x + readme_image.WIDTH].astype(int)
    assert np.ptp(2 * detail - np.asarray(inner), axis=(0, 1)).max() <= 2


@pytest.mark.parametrize("count", [1, 3])
def test_the_sheet_of_examples(tmp_path, count):
    with PIL.Image.open(readme_image.PHOTO) as photo:
        photo.resize((160, 120)).save(tmp_path / "photo.png")
    photo_examples.main([tmp_path / "photo.png"] * count, str(ROOT / "hub/massformer-photo"), tmp_path / "sheet.jpg")
    (width, height), gap = photo_examples.CELL, photo_examples.GAP
    with PIL.Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.width == 4 * width + 5 * gap
        # Rows of two pairs, and a legend.
        assert sheet.height // (height + gap) == (count + 1) // 2
