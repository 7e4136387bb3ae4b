"""Edit photos with label maps and mattes: overlays, cut-outs, bokeh and refined mattes."""

from ..data.label_images import class_palette, label_map_image
from ..inference.mattes import class_mattes, joined_matte, matte_values
from .lens_blur import bokeh
from .matting import cut_out, firm_matte, foreground_and_background, refine_matte
from .overlay import overlay_image, priors_image, with_legend


__all__ = [
    "bokeh",
    "class_mattes",
    "class_palette",
    "cut_out",
    "firm_matte",
    "foreground_and_background",
    "joined_matte",
    "label_map_image",
    "matte_values",
    "overlay_image",
    "priors_image",
    "refine_matte",
    "with_legend",
]
