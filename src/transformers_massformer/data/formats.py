"""Names of the file formats of label maps, without the libraries that read and write them."""

from enum import StrEnum


FORMAT_HELP = (
    "png: class indices with a palette. png-grey: without one, for OpenCV. coco-rle: JSON with a mask per class."
)


class AnnotationFormat(StrEnum):
    """File formats of label maps."""

    png = "png"
    png_grey = "png-grey"
    coco_rle = "coco-rle"

    @property
    def suffix(self) -> str:
        """Return the suffix of files in this format."""
        return ".json" if self == AnnotationFormat.coco_rle else ".png"
