"""Take the screenshots of the web page for the documentation: a drawn 4K scene on a desktop and on a phone."""

import io
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import PIL.Image
import typer
from playwright.sync_api import Page, ViewportSize, sync_playwright
from transformers.utils import logging

from transformers_massformer.demo.page import serving
from transformers_massformer.inference.segmenter import Segmenter
from transformers_massformer.scenes import SceneFiles, render_scene


ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "hub" / "massformer-photo"
# One of the held-out scenes that the checkpoint's card scores.
SEED, INDEX, SIZE = 7, 1, (4096, 3072)
# A phone of medium size: CSS pixels of its page, and device pixels per CSS pixel.
PHONE, PHONE_RATIO = ViewportSize(width=390, height=844), 3
DESK = ViewportSize(width=1280, height=900)
JPEG_QUALITY, TIMEOUT = 85, 600_000


def drop(page: Page, address: str, photo: Path):
    """Open the page and upload a photo."""
    page.set_default_timeout(TIMEOUT)
    page.goto(address)
    page.set_input_files("#upload input[type=file]", photo)
    page.wait_for_selector('.viewer-stage[data-state="ready"]')
    page.wait_for_selector("#label-map")


def move_divider(page: Page, percent: int):
    """Move the divider with the keyboard, in steps of 5 %."""
    page.focus(".viewer-divider")
    page.keyboard.press("Home")
    for _ in range(percent // 5):
        page.keyboard.press("ArrowRight")


def zoom_to(page: Page, x: float, y: float, turns: int):
    """Zoom in at a point of the viewer, given as fractions of its width and height."""
    box: Any = page.locator(".viewer-canvas").bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    for _ in range(turns):
        page.mouse.wheel(0, -200)


def save(page: Page, path: Path, part: str | None = None, width: int | None = None, whole: bool = False):
    """Save a screenshot of the window, of a part or of the complete page as JPEG, optionally at a given width."""
    # Wait for animations, without hover or focus styles.
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(1500)
    shot = page.screenshot(full_page=whole) if part is None else page.locator(part).screenshot()
    picture = PIL.Image.open(io.BytesIO(shot)).convert("RGB")
    if width is not None:
        picture = picture.resize((width, round(picture.height * width / picture.width)), PIL.Image.Resampling.LANCZOS)
    picture.save(path, quality=JPEG_QUALITY, optimize=True)
    typer.echo(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


def desk(page: Page, address: str, photo: Path, output: Path):
    """Take the screenshots of the desktop page: complete, zoomed in, and with a cut-out."""
    drop(page, address, photo)
    move_divider(page, 35)
    save(page, output / "web_demo.jpg", whole=True)
    zoom_to(page, 0.44, 0.75, 7)
    save(page, output / "web_demo_zoom.jpg", part="#viewer")
    page.click("[data-zoom=fit]")
    page.click("#cut-class input")
    page.get_by_role("option", name="vegetation").click()
    page.click("#cut-out")
    page.wait_for_selector(".viewer-layers button >> text=Cut-out")
    move_divider(page, 30)
    save(page, output / "web_demo_cutout.jpg", part="#viewer")


def phone(page: Page, address: str, photo: Path, output: Path):
    """Take the screenshot of the page on a phone."""
    drop(page, address, photo)
    move_divider(page, 40)
    page.evaluate("scrollTo(0, document.querySelector('#scene').getBoundingClientRect().top + scrollY - 16)")
    save(page, output / "web_demo_phone.jpg", width=2 * PHONE["width"])


def main(
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = ROOT / "docs" / "images",
    chromium: Annotated[str | None, typer.Option(help="Browser; by default `chromium` on the PATH.")] = None,
):
    logging.disable_progress_bar()
    browser_path = chromium or shutil.which("chromium")
    if browser_path is None:
        typer.echo("No chromium on the PATH. Install it or pass --chromium.", err=True)
        raise typer.Exit(1)
    segmenter = Segmenter(CHECKPOINT, "cpu", mattes=True)
    with tempfile.TemporaryDirectory() as folder, serving(segmenter, CHECKPOINT.name) as address:
        scene = SceneFiles(Path(folder), "val", SEED, INDEX, with_alpha=False)
        scene.write(render_scene(SEED, INDEX, SIZE))
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            desk(browser.new_page(viewport=DESK), address, scene.image, output)
            small = browser.new_context(
                viewport=PHONE, device_scale_factor=PHONE_RATIO, has_touch=True, is_mobile=True
            )
            phone(small.new_page(), address, scene.image, output)
            browser.close()


if __name__ == "__main__":
    typer.run(main)
