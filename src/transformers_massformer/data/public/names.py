"""Names of the public data sets, which the command line offers without importing the readers."""

from enum import StrEnum


class PublicDataSet(StrEnum):
    """Public data sets that can be prepared."""

    ade20k = "ade20k"
    camvid = "camvid"
    cityscapes = "cityscapes"
    clothing_co_parsing = "clothing-co-parsing"
    coco_stuff = "coco-stuff"
    labelmefacade = "labelmefacade"
    mapillary_vistas = "mapillary-vistas"
    penn_fudan = "penn-fudan"
    stanford_background = "stanford-background"
