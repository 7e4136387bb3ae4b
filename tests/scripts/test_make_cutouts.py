"""Cut-outs of known alpha."""

import numpy as np
import pytest


pytest.importorskip("cv2")
from make_cutouts import darkness_key, enlarged_alpha, large_parts


def test_masks_are_enlarged_with_a_soft_edge_inside():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    alpha = enlarged_alpha(mask, 3)
    assert alpha.shape == (120, 120)
    assert alpha[60, 60] == 1
    assert alpha[60, 25] == 0
    row = alpha[60, 20:60]
    assert (np.diff(row) >= 0).all()
    assert 1 <= ((row > 0) & (row < 1)).sum() <= 4
    assert 0.9 < alpha.sum() / (9 * mask.sum()) < 1


def test_small_parts_are_dropped():
    alpha = np.zeros((50, 50), np.float32)
    alpha[:30, :30], alpha[40, 40] = 0.7, 1
    kept = large_parts(alpha)
    assert kept[40, 40] == 0
    assert (kept[:30, :30] == alpha[:30, :30]).all()


def test_foliage_is_keyed_by_its_darkest_channel_against_a_changing_sky():
    rows, columns = np.mgrid[:200, :300]
    sky = np.stack([150 + columns / 6, 180 + columns / 6, 200 + columns / 6], -1)
    alpha = (50.5 - np.hypot(rows - 100, columns - 150)).clip(0, 1)[..., None]
    photo = np.rint(alpha * (120, 160, 20) + (1 - alpha) * sky).astype(np.uint8)
    found = darkness_key(photo, alpha[..., 0] < 0.5, clear=0.3, opaque=0.6)
    assert (found[alpha[..., 0] == 1] == 1).all()
    assert (found[alpha[..., 0] == 0] == 0).all()
