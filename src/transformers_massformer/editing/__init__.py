"""What a photo editor does with a label map."""

from .mattes import class_mattes
from .overlay import class_palette, label_map_image, overlay_image, priors_image


__all__ = ["class_mattes", "class_palette", "label_map_image", "overlay_image", "priors_image"]
