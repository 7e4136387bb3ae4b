import numpy as np
import torch

from transformers_massformer.evaluation.panels import error_panel
from transformers_massformer.evaluation.profiling import blank_photo


def test_panels_show_thin_errors():
    label = torch.zeros(1200, 1600, dtype=torch.uint8)
    label[:, 800:] = 1
    prediction = label.long().clone()
    prediction[:, 400] = 1
    label[100:200, 100:200] = 255
    panel = np.asarray(error_panel(blank_photo(1600, 1200), label, prediction, 2)).astype(int)
    blue = (panel[..., 2] > 200) & (panel[..., 0] < 120)
    green = (panel[..., 1] > 150) & (panel[..., 0] < 120) & (panel[..., 2] < 120)
    assert blue[panel.shape[0] // 2 + 200, panel.shape[1] // 2 :].any()
    assert green[panel.shape[0] // 2 + 200, panel.shape[1] // 2 :].any()
