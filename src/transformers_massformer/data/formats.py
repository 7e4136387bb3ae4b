"""Names of the file formats of label maps, without the libraries that read and write them."""

from enum import StrEnum


class AnnotationFormat(StrEnum):
    """File formats of label maps."""

    png = "png"
    png_grey = "png-grey"
    coco_rle = "coco-rle"

    @property
    def suffix(self) -> str:
        """Return the suffix of files in this format."""
        return ".json" if self == AnnotationFormat.coco_rle else ".png"
