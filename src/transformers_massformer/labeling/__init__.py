"""Add classes without drawing masks: pseudo-labels from a text, a detector and a segmenter (paper, section 4.3)."""

from ..data.annotations import decode_mask, encode_mask
from .detection import Detections, Detector, ZeroShotDetector
from .instances import Instance
from .labeler import Labeler, LabelOptions
from .merging import combined_label_map, pseudo_label_map
from .segmentation import BoxSegmenter, SamSegmenter


__all__ = [
    "BoxSegmenter",
    "Detections",
    "Detector",
    "Instance",
    "LabelOptions",
    "Labeler",
    "SamSegmenter",
    "ZeroShotDetector",
    "combined_label_map",
    "decode_mask",
    "encode_mask",
    "pseudo_label_map",
]
