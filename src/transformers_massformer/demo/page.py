"""Build the page from Gradio components around the viewer, and serve it."""

import contextlib
import html
import os
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import gradio as gr

from ..editing.lens_blur import check_strength
from ..inference.segmenter import Segmenter
from .studio import FoundClass, Result, Studio


VIEWER = Path(__file__).parent
# Seconds after which a visitor's files and state are deleted, and seconds between checks.
KEPT_SECONDS, SWEEP_SECONDS = 3300, 300
# Maximum number of waiting visitors; further ones are rejected.
QUEUE_SIZE = 16
# Maximum file size in bytes per allowed pixel: uncompressed 8-bit RGBA.
BYTES_PER_PIXEL = 4
# Exceptions of the studio whose messages are shown to visitors.
ERRORS = (ImportError, MemoryError, TimeoutError, ValueError)

# Likely subjects of photos, likeliest first, and the fraction of the pixels that a subject must cover.
SUBJECTS, LEAST_SHARE = ("human", "building", "vegetation"), 0.01

TITLE = "MaSSFormer"
INTRODUCTION = """# MaSSFormer
Sharp segmentation of complete photos at their original size. Your files are deleted within an hour."""
DEMO_CHECKPOINT, DEMO_NOTE = (
    "massformer-photo",
    " This small model makes mistakes, and its weights are for **research only**.",
)


@contextlib.contextmanager
def shown_errors() -> Generator[None]:
    """Show the studio's errors to the visitor."""
    try:
        yield
    except ERRORS as error:
        # The page renders messages as HTML.
        raise gr.Error(html.escape(str(error), quote=False), duration=None, print_exception=False) from error


def served_file(path: Path) -> dict[str, Any]:
    """Describe a file in the way in which Gradio sends it to the page, where it gets a `url`."""
    return gr.FileData(path=str(path), orig_name=path.name).model_dump()


def shown_class(found: FoundClass) -> dict[str, Any]:
    """Convert a class to the format of `viewer.js`."""
    return {"index": found.index, "name": found.name, "colour": found.colour, "share": found.share}


def viewer_value(result: Result, shown: str | None = None) -> dict[str, Any]:
    """
    Build the value that `viewer.js` shows.

    Args:
        result (`Result`): The segmented photo.
        shown (`str`, *optional*): Name of the edit to show first; the classes by default.
    """
    return {
        "photo": served_file(result.photo),
        "labels": served_file(result.labels),
        "width": result.width,
        "height": result.height,
        "classes": [shown_class(found) for found in result.classes],
        "layers": [{"name": name, "file": served_file(path)} for name, path in result.edits.items()],
        "shown": shown,
    }


def likely_subject(result: Result) -> str:
    """Guess the subject of a photo, which is rarely its largest class."""
    large = [found.name for found in result.classes if found.share >= LEAST_SHARE]
    return next((name for name in SUBJECTS if name in large), result.names[0])


def viewer() -> gr.HTML:
    """Create the viewer without a photo."""
    return gr.HTML(
        html_template=(VIEWER / "viewer.html").read_text(encoding="utf-8"),
        js_on_load=(VIEWER / "viewer.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="viewer",
    )


class Page:
    """
    The page and its event handlers.

    Args:
        studio (`Studio`): Studio that segments and edits the photos.
        introduction (`str`): Markdown at the top of the page.
    """

    def __init__(self, studio: Studio, introduction: str = INTRODUCTION):
        self.studio = studio
        with gr.Blocks(
            title=TITLE, analytics_enabled=False, delete_cache=(SWEEP_SECONDS, KEPT_SECONDS), fill_width=True
        ) as self.blocks:
            self.result = gr.State(time_to_live=KEPT_SECONDS, delete_callback=self.forget)
            gr.Markdown(introduction)
            with gr.Row(equal_height=True):
                self.upload = gr.File(
                    label=f"Photo, up to {studio.max_megapixels:g} megapixels",
                    file_types=["image"],
                    height=150,
                    scale=5,
                    elem_id="upload",
                )
                self.scene = gr.Button("Draw a scene and segment it", scale=1, min_width=200, elem_id="scene")
            self.viewer = viewer()
            self.report = gr.Markdown(elem_id="report")
            with gr.Row(visible=False) as self.results:
                self.add_downloads()
                self.add_cut_out()
                self.add_bokeh()
            self.connect()

    def add_downloads(self):
        """Add the column of downloads."""
        with gr.Column(min_width=280):
            gr.Markdown("### Download")
            self.label_map = gr.DownloadButton("Label map (PNG)", elem_id="label-map")
            self.mattes = gr.File(label="Mattes (PNG)", file_count="multiple", interactive=False, elem_id="mattes")

    def add_cut_out(self):
        """Add the column that cuts out a class."""
        with gr.Column(min_width=280):
            gr.Markdown("### Cut out")
            self.cut_class = gr.Dropdown(label="Class", interactive=True, elem_id="cut-class")
            self.cut_button = gr.Button("Cut out", elem_id="cut-out")
            self.cut_file = gr.File(label="Cut-out (PNG with alpha)", interactive=False, visible=False)

    def add_bokeh(self):
        """Add the column that blurs the background."""
        with gr.Column(min_width=280):
            gr.Markdown("### Blur the background")
            self.focus = gr.Dropdown(label="In focus", multiselect=True, interactive=True, elem_id="focus")
            self.strength = gr.Slider(
                0.1, 5, 1, step=0.1, label="Strength", info="Radius in percent of the diagonal", elem_id="strength"
            )
            self.blur_button = gr.Button("Blur", elem_id="blur")
            self.blur_file = gr.File(label="Blurred photo (JPEG)", interactive=False, visible=False)

    def connect(self):
        """Connect components and handlers. All work shares a queue because it shares one model and one memory."""
        queue: dict[str, Any] = {"concurrency_id": "studio", "concurrency_limit": 1, "show_progress_on": self.viewer}
        segmented = [
            *(self.result, self.viewer, self.report, self.results, self.label_map, self.mattes),
            *(self.cut_class, self.cut_file, self.focus, self.blur_file),
        ]
        self.upload.upload(self.segment, [self.upload, self.result], segmented, api_name="segment", **queue)
        self.scene.click(self.segment_scene, self.result, segmented, api_name="scene", **queue)
        cut = [self.result, self.viewer, self.report, self.cut_file]
        self.cut_button.click(self.cut_out, [self.result, self.cut_class], cut, api_name="cut_out", **queue)
        blurred = [self.result, self.viewer, self.report, self.blur_file]
        self.blur_button.click(self.blur, [self.result, self.focus, self.strength], blurred, api_name="blur", **queue)

    def forget(self, result: Result | None):
        """Delete a visitor's result."""
        if result is not None:
            self.studio.shelf.drop(result.folder)

    def segmented(self, result: Result, former: Result | None) -> tuple[Any, ...]:
        """Return the component values that show a new photo."""
        self.forget(former)
        subject = likely_subject(result)
        return (
            result,
            viewer_value(result),
            result.report,
            gr.Row(visible=True),
            str(result.label_map),
            [str(path) for path in result.mattes],
            gr.Dropdown(result.names, value=subject),
            gr.File(None, visible=False),
            gr.Dropdown(result.names, value=[subject]),
            gr.File(None, visible=False),
        )

    def segment(self, path: str, former: Result | None) -> tuple[Any, ...]:
        """Segment an uploaded photo."""
        with shown_errors():
            return self.segmented(self.studio.segment(path, Path(path).name), former)

    def segment_scene(self, former: Result | None) -> tuple[Any, ...]:
        """Draw and segment a scene."""
        with shown_errors():
            return self.segmented(self.studio.segment_scene(), former)

    def edited(self, result: Result, name: str) -> tuple[Any, ...]:
        """Return the component values that show an edit."""
        return result, viewer_value(result, name), result.report, gr.File(str(result.edits[name]), visible=True)

    def cut_out(self, result: Result | None, name: str) -> tuple[Any, ...]:
        """Cut out a class."""
        with shown_errors():
            return self.edited(self.studio.cut_out(segmented_first(result), name), "Cut-out")

    def blur(self, result: Result | None, focus: list[str], strength: float) -> tuple[Any, ...]:
        """Blur everything but some classes; the strength is in percent of the diagonal."""
        with shown_errors():
            check_strength(strength / 100)
            return self.edited(self.studio.blur(segmented_first(result), focus, strength / 100), "Bokeh")


def segmented_first(result: Result | None) -> Result:
    """
    Return the result.

    Raises:
        ValueError: If there is no result, or if it has been deleted.
    """
    if result is None:
        raise ValueError("There is no photo, or it has been deleted. Upload a photo first.")
    return result


def theme() -> gr.Theme:
    """Return Gradio's default theme with system fonts, so that nothing is loaded from other servers."""
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


@contextlib.contextmanager
def temporary_uploads() -> Generator[Path]:
    """Create a folder for all of the visitors' files, which is deleted at the end of the block."""
    former = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="massformer-demo-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            if former is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = former


@contextlib.contextmanager
def serving(
    segmenter: Segmenter,
    name: str,
    host: str | None = None,
    port: int | None = None,
    max_megapixels: float = 50,
    timeout: float = 600,
) -> Generator[str]:
    """
    Serve the page while the block runs. No requests go to other servers.

    Args:
        segmenter (`Segmenter`): A model that makes mattes.
        name (`str`): Name of the model.
        host (`str`, *optional*): Address to listen on; `GRADIO_SERVER_NAME` by default, else only this machine.
        port (`int`, *optional*): Port; `GRADIO_SERVER_PORT` by default, else the first free port from 7860.
        max_megapixels (`float`, *optional*, defaults to 50): Maximum size of a photo, see [`Studio`].
        timeout (`float`, *optional*, defaults to 600): Time limit in seconds, see [`Studio`].

    Yields:
        `str`: The page's address.

    Raises:
        OSError: If the port is in use.
        ValueError: If a limit is not above 0.
    """
    with temporary_uploads() as folder:
        studio = Studio(segmenter, folder / "results", max_megapixels, timeout)
        page = Page(studio, INTRODUCTION + (DEMO_NOTE if name == DEMO_CHECKPOINT else ""))
        try:
            _, address, _ = page.blocks.queue(max_size=QUEUE_SIZE).launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                inbrowser=False,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                pwa=False,
                ssr_mode=False,
                mcp_server=False,
                max_file_size=round(BYTES_PER_PIXEL * max_megapixels * 1e6),
                theme=theme(),
                css_paths=[VIEWER / "viewer.css"],
            )
            yield address
        finally:
            studio.deadline.stop()
            page.blocks.close(verbose=False)


def serve(model: str | Path):
    """
    Serve the page until interrupted, at the address set by Gradio's environment variables. This is what a Space runs.

    Args:
        model (`str` or `Path`): Folder (or Hub name) of the model and its image processor.
    """
    with contextlib.suppress(KeyboardInterrupt), serving(Segmenter(model, mattes=True), Path(model).name):
        threading.Event().wait()
