"""Score two label maps with the metric on a web page."""

from pathlib import Path

import evaluate
import gradio as gr
import numpy as np
import PIL.Image


SCRIPT = Path(__file__).with_name("boundary_segmentation.py")


def read_label_map(path: str) -> np.ndarray:
    """Read class ids from a greyscale or palette image."""
    with PIL.Image.open(path) as image:
        if image.mode not in ("L", "P"):
            raise gr.Error(
                f"{Path(path).name} has mode {image.mode}: save class ids as greyscale (L) or with a palette (P)."
            )
        return np.array(image)


def compare(prediction: str, reference: str, ignore_index: float, boundary_ratio: float, bf1_tolerance: float):
    """Return the mean scores and the scores of each class as table rows."""
    maps = {"predictions": [read_label_map(prediction)], "references": [read_label_map(reference)]}
    settings = {"boundary_ratio": boundary_ratio, "bf1_tolerance": bf1_tolerance}
    try:
        result = evaluate.load(str(SCRIPT)).compute(**maps, ignore_index=int(ignore_index), **settings) or {}
    except ValueError as error:
        raise gr.Error(str(error)) from error
    names = ("iou", "boundary_iou", "bf1")
    rows = [["mean", *(f"{result[f'mean_{name}']:.4f}" for name in names)]]
    by_class = zip(*(result[f"per_category_{name}"] for name in names), strict=True)
    return rows + [[str(index), *(f"{value:.4f}" for value in values)] for index, values in enumerate(by_class)]


def build() -> gr.Interface:
    """Build the page."""
    return gr.Interface(
        compare,
        inputs=[
            gr.File(label="Predicted label map (PNG)", file_types=["image"], type="filepath"),
            gr.File(label="Reference label map (PNG)", file_types=["image"], type="filepath"),
            gr.Number(255, label="Ignored label", precision=0),
            gr.Number(0.001, label="Band width as a fraction of the diagonal"),
            gr.Number(2, label="BF1 tolerance in pixels"),
        ],
        outputs=gr.Dataframe(headers=["class", "IoU", "Boundary IoU", "BF1"], label="Scores"),
        title="Boundary segmentation",
        description="Computes IoU, Boundary IoU and boundary F1 of two label maps of the same size.",
        flagging_mode="never",
    )


if __name__ == "__main__":
    build().launch()
