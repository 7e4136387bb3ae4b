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


class ResultFormat(StrEnum):
    """File formats of the results of segmentation: those of label maps, and Parquet files of many photographs."""

    png = AnnotationFormat.png
    png_grey = AnnotationFormat.png_grey
    coco_rle = AnnotationFormat.coco_rle
    parquet = "parquet"

    @property
    def of_label_maps(self) -> AnnotationFormat:
        """Return the format of a label map's file; for Parquet files, which need none, PNG."""
        return AnnotationFormat.png if self is ResultFormat.parquet else AnnotationFormat(self.value)
