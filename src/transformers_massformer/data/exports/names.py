"""Names of the tools whose exports can be converted, without the libraries that read them."""

from enum import StrEnum


class Tool(StrEnum):
    """Annotation tools and formats."""

    cvat = "cvat"
    label_studio = "label-studio"
    coco = "coco"


class Overlaps(StrEnum):
    """What happens at pixels that an export assigns to two classes."""

    error = "error"
    last = "last"
