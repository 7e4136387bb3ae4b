"""Test the web page: its parts, its server, and the page in a browser."""

import base64
import contextlib
import gzip
import io
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import PIL.Image
import PIL.ImageFile
import psutil
import pytest
import torch
from support import ROOT
from support.commands import run, run_python
from support.processes import free_port
from torch import nn

from transformers_massformer import open_image
from transformers_massformer.demo import uploads
from transformers_massformer.demo.deadline import Deadline
from transformers_massformer.demo.studio import Shelf, Studio
from transformers_massformer.demo.uploads import read_upload
from transformers_massformer.editing import bokeh, class_palette, cut_out, firm_matte, joined_matte
from transformers_massformer.inference.segmenter import Segmenter
from transformers_massformer.scenes import render_scene


CHECKPOINT = ROOT / "hub" / "massformer-photo"
CHROMIUM = shutil.which("chromium")
SIZES = {"wide.jpg": (320, 240), "high.jpg": (192, 256)}


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_size(width, height):
    """Return a PNG file that claims a size but has hardly any pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 10)) + png_chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Write drawn scenes, which the demo checkpoint knows, and files that are not photos."""
    folder = tmp_path_factory.mktemp("photos")
    for index, (name, size) in enumerate(SIZES.items()):
        PIL.Image.fromarray(render_scene(7, index, size).image).save(folder / name, quality=95)
    PIL.Image.new("RGB", (1, 1), "blue").save(folder / "dot.png")
    (folder / "notes.jpg").write_text("These are notes.")
    (folder / "bomb.png").write_bytes(png_of_size(60000, 60000))
    (folder / "large.png").write_bytes(png_of_size(10000, 6000))
    (folder / "cut.jpg").write_bytes((folder / "wide.jpg").read_bytes()[:2000])
    return folder


@pytest.fixture(scope="module")
def segmenter():
    pytest.importorskip("timm", reason="The demo checkpoint's backbone is timm's.")
    return Segmenter(CHECKPOINT, "cpu", mattes=True)


@pytest.fixture
def studio(segmenter, tmp_path):
    return Studio(segmenter, tmp_path / "results")


# Uploads


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("notes.jpg", "notes.jpg is not a supported image file. Use a JPEG"),
        ("bomb.png", "bomb.png is far too large: at most 50 megapixels"),
        ("large.png", "large.png has 10000 x 6000 pixels; at most 50 megapixels"),
    ],
)
def test_invalid_uploads_are_rejected_without_decoding(photos, monkeypatch, name, words):
    monkeypatch.setattr(uploads, "read_photo", lambda path, name: pytest.fail(f"{path} was decoded"))
    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", lambda image: pytest.fail("a picture was decoded"))
    with pytest.raises(ValueError, match=re.escape(words)):
        read_upload(photos / name, name, 50)


def test_formats_that_start_programs_are_rejected(tmp_path):
    path = tmp_path / "drawing.jpg"
    PIL.Image.new("RGB", (8, 8)).save(path, format="EPS")
    with pytest.raises(ValueError, match=r"drawing\.jpg is not a supported image file"):
        read_upload(path, "drawing.jpg", 50)


def test_errors_about_damaged_photos_name_the_uploaded_file(photos):
    with pytest.raises(ValueError, match=r"^mine\.jpg is damaged or truncated") as caught:
        read_upload(photos / "cut.jpg", "mine.jpg", 50)
    assert str(photos) not in str(caught.value)


def test_the_size_limit_is_inclusive(photos):
    assert read_upload(photos / "wide.jpg", "wide.jpg", 320 * 240 / 1e6).size == (320, 240)
    with pytest.raises(ValueError, match="320 x 240 pixels; at most 0.07 megapixels"):
        read_upload(photos / "wide.jpg", "wide.jpg", 0.07)


# Time limit


def test_a_model_that_takes_too_long_is_stopped():
    steps = []

    class Step(nn.Module):
        def forward(self, x):
            steps.append(time.sleep(0.02))
            return x

    model = nn.Sequential(*(Step() for _ in range(100)))
    deadline = Deadline(0.1)
    deadline.watch(model)
    with pytest.raises(TimeoutError, match=r"longer than 0\.1 seconds"), deadline.running():
        model(torch.zeros(1))
    assert 1 <= len(steps) < 20
    # The next piece of work has its own time, and there is no limit outside of work.
    with deadline.running():
        model[0](torch.zeros(1))
    time.sleep(0.12)
    model[0](torch.zeros(1))
    deadline.stop()
    with pytest.raises(TimeoutError, match="shutting down"):
        model(torch.zeros(1))


def test_pieces_of_work_wait_for_each_other():
    deadline, running, most = Deadline(10), [], []

    def work(number):
        with deadline.running():
            running.append(number)
            most.append(len(running))
            time.sleep(0.02)
            running.remove(number)

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(work, range(5)))
    assert most == [1] * 5


@pytest.mark.parametrize("limits", [{"timeout": 0}, {"max_megapixels": 0}, {"timeout": float("nan")}])
def test_limits_must_be_positive(segmenter, tmp_path, limits):
    with pytest.raises(ValueError, match="must"):
        Studio(segmenter, tmp_path, **limits)


# Results


def test_only_the_newest_results_are_kept(tmp_path):
    shelf = Shelf(tmp_path, kept=2)
    folders = [shelf.new() for _ in range(3)]
    (folders[2] / "file").write_text("x")
    assert [folder.exists() for folder in folders] == [False, True, True]
    shelf.drop(folders[2])
    shelf.drop(folders[2])
    assert sorted(tmp_path.iterdir()) == [folders[1]]


def test_results_equal_those_of_the_segmenter(studio, segmenter, photos):
    result = studio.segment(photos / "wide.jpg", "my <photo>.JPG")
    photo = open_image(photos / "wide.jpg")
    expected = segmenter(photo)
    assert (result.width, result.height) == photo.size
    with PIL.Image.open(result.label_map) as label_map:
        assert label_map.mode == "P"
        assert label_map.getpalette()[:21] == class_palette(7).flatten().tolist()
        assert np.array_equal(np.asarray(label_map), expected.label_map)
    # Byte 24 of a PNG header is the number of bits per pixel.
    assert result.label_map.read_bytes()[24] == 8
    assert result.label_map.name == "my_photo__label_map.png"
    labels = np.frombuffer(gzip.decompress(result.labels.read_bytes()), np.uint8)
    assert np.array_equal(labels.reshape(240, 320), expected.label_map)
    counts = np.bincount(expected.label_map.ravel(), minlength=7)
    assert {found.index: found.share * 320 * 240 for found in result.classes} == pytest.approx(
        {index: count for index, count in enumerate(counts) if count}
    )
    assert len(result.classes) > 3
    assert [found.share for found in result.classes] == sorted((found.share for found in result.classes), reverse=True)
    for found in result.classes:
        with PIL.Image.open(result.matte(found.name)) as matte:
            assert matte.mode == "L"
            assert np.array_equal(np.asarray(matte), expected.mattes[found.index])
    assert re.fullmatch(r"320 x 240 pixels, [\d.]+ s on cpu, peak memory [\d.]+ GiB", result.report)


def test_edits_equal_those_of_the_package(studio, photos):
    result = studio.segment(photos / "wide.jpg", "wide.jpg")
    first, second = result.names[:2]
    photo = open_image(photos / "wide.jpg")
    mattes = [firm_matte(PIL.Image.open(result.matte(name))) for name in (first, second)]
    edited = studio.blur(studio.cut_out(result, first), [first, second], 0.02)
    with PIL.Image.open(edited.edits["Cut-out"]) as found:
        assert found.mode == "RGBA"
        assert np.array_equal(np.asarray(found), np.asarray(cut_out(photo, mattes[0])))
    expected = io.BytesIO()
    bokeh(photo, joined_matte(mattes, photo.size), 0.02).save(expected, "JPEG", quality=92)
    assert edited.edits["Bokeh"].read_bytes() == expected.getvalue()
    assert result.edits == {}


def test_impossible_edits_raise(studio, photos):
    result = studio.segment(photos / "dot.png", "dot.png")
    with pytest.raises(ValueError, match="contains no horse. Choose from "):
        studio.cut_out(result, "horse")
    with pytest.raises(ValueError, match="Select at least one class"):
        studio.blur(result, [], 0.01)
    with pytest.raises(ValueError, match="strength"):
        studio.blur(result, result.names, 0.2)
    studio.shelf.drop(result.folder)
    with pytest.raises(ValueError, match="has been deleted"):
        studio.cut_out(result, result.names[0])


def test_failures_leave_no_files(segmenter, photos, tmp_path):
    studio = Studio(segmenter, tmp_path / "results", timeout=0.01)
    with pytest.raises(TimeoutError, match="longer than 0.01 seconds"):
        studio.segment(photos / "wide.jpg", "wide.jpg")
    assert list((tmp_path / "results").iterdir()) == []


def test_joined_mattes():
    mattes = [PIL.Image.fromarray(np.array([[0, 100, 200]], np.uint8)) for _ in range(2)]
    assert joined_matte(mattes, (3, 1)) == pytest.approx(np.array([[0, 200 / 255, 1]]))
    assert np.array_equal(joined_matte([], (3, 1)), np.zeros((1, 3)))


# The command


def test_a_missing_demo_checkpoint_raises(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers_massformer.cli.options.files", lambda package: tmp_path)
    result = run("demo", code=2)
    assert "Name another model with --model" in " ".join(result.output.replace("│", " ").split())


@contextlib.contextmanager
def serving(folder, command, **variables):
    """Run a command that serves the page, with temporary files in a folder; yield its address and the process."""
    pytest.importorskip("gradio", reason="The page needs Gradio.")
    port = free_port()
    environment = os.environ | {"TMPDIR": str(folder), "GRADIO_SERVER_PORT": str(port)} | variables
    command = [sys.executable, *(str(port) if part is PORT else part for part in command)]
    # In a separate process because Gradio leaves sockets and event loops open.
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True) as process:
        try:
            address, end = f"http://127.0.0.1:{port}/", time.monotonic() + 180
            while time.monotonic() < end and process.poll() is None:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(address).status_code == 200:
                        break
                time.sleep(0.2)
            else:
                process.kill()
                pytest.fail(f"no page at {address}: {process.communicate()}")
            yield address, process
        finally:
            process.kill()


PORT = object()
COMMAND = ["-m", "transformers_massformer.cli", "demo", "--port", PORT]


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_cleanly(tmp_path, by):
    with serving(tmp_path, COMMAND) as (address, process):
        # The page responds a moment before the command prints its address.
        assert process.stdout.readline().startswith(address.rstrip("/"))
        process.send_signal(by)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert printed.endswith("stopped\n")
    assert "Traceback" not in errors
    assert list(tmp_path.glob("massformer-demo-*")) == []


@pytest.mark.slow
def test_a_port_that_is_taken(tmp_path):
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = run_python(*COMMAND[:-1], port, code=1)
    assert re.search(rf"error: .*{port}", ended.stderr)


@pytest.mark.slow
def test_the_space_serves_the_page(tmp_path):
    with serving(tmp_path, [str(ROOT / "hub" / "space" / "app.py")], MASSFORMER_MODEL=str(CHECKPOINT)) as (address, _):
        assert "MaSSFormer" in httpx.get(address).text


def test_the_space_pins_the_tested_gradio():
    front = (ROOT / "hub" / "space" / "README.md").read_text().split("---")[1]
    version = re.search(r"^sdk_version: (\S+)$", front, re.MULTILINE)[1]
    assert f"gradio=={version}\n" in (ROOT / "constraints.txt").read_text()


# The server


@pytest.fixture(scope="module")
def server_process(tmp_path_factory):
    """Serve a page that accepts half a megapixel; yield its address and its process."""
    with serving(tmp_path_factory.mktemp("temporary"), [*COMMAND, "--max-megapixels", "0.5"]) as served:
        yield served


@pytest.fixture(scope="module")
def server(server_process):
    return server_process[0]


@contextlib.contextmanager
def visitor(server, folder):
    from gradio_client import Client

    options = {"verbose": False, "download_files": str(folder), "analytics_enabled": False}
    with contextlib.closing(Client(server, **options)) as made:
        yield made


def send(client, photo):
    from gradio_client import handle_file

    return client.predict(handle_file(str(photo)), api_name="/segment")


def test_it_listens_to_this_machine_only(server_process):
    _, process = server_process
    listening = [found for found in psutil.Process(process.pid).net_connections("tcp") if found.status == "LISTEN"]
    assert {found.laddr.ip for found in listening} == {"127.0.0.1"}


def test_two_visitors_at_once_get_their_own(server, photos, segmenter, tmp_path):
    expected = {name: segmenter(open_image(photos / name)).label_map for name in SIZES}
    faults = []

    def visit(number, name):
        with visitor(server, tmp_path / str(number)) as client:
            for _ in range(3):
                shown, _, label_map, mattes, *_ = send(client, photos / name)
                with PIL.Image.open(label_map) as found:
                    if not np.array_equal(np.asarray(found), expected[name]):
                        faults.append((number, name, "label map"))
                if (shown["width"], shown["height"]) != SIZES[name] or len(mattes) != len(shown["classes"]):
                    faults.append((number, name, "viewer"))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(visit, range(2), SIZES))
    assert faults == []


def test_visitors_do_not_see_the_edits_of_others_but_errors_of_their_own(server, photos, tmp_path):
    from gradio_client.exceptions import AppError

    with visitor(server, tmp_path / "a") as first, visitor(server, tmp_path / "b") as second:
        shown, *_ = send(first, photos / "wide.jpg")
        name = shown["classes"][0]["name"]
        with pytest.raises(AppError, match="There is no photo"):
            second.predict([], 1, api_name="/blur")
        with pytest.raises(AppError, match=r"bomb\.png is far too large: at most 0\.5 megapixels"):
            send(second, photos / "bomb.png")
        edited, report, _ = first.predict(name, api_name="/cut_out")
        assert edited["shown"] == "Cut-out"
        assert re.fullmatch(rf"Cut-out of {name}: [\d.]+ s, peak memory [\d.]+ GiB", report)
        assert [layer["name"] for layer in edited["layers"]] == ["Cut-out"]


def test_files_that_are_too_large_are_rejected(server, photos, tmp_path):
    sent = httpx.post(f"{server}gradio_api/upload", files={"files": ("big.jpg", b"0" * 2_000_001)})
    assert sent.status_code == 413
    assert "maximum allowed size" in sent.text


# The page in a browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="The page is driven by playwright.")
    if CHROMIUM is None:
        pytest.skip("The page's tests need chromium.")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser, server):
    """Open the page in a window; afterwards, check that no request left this machine and no script failed."""
    with contextlib.closing(browser.new_context(viewport={"width": 1000, "height": 800})) as context:
        opened, asked, failed = context.new_page(), [], []
        opened.set_default_timeout(30_000)
        opened.on("request", lambda request: asked.append(request.url))
        opened.on("pageerror", lambda error: failed.append(str(error)))
        opened.goto(server)
        opened.wait_for_selector(".viewer-stage")
        yield opened
        assert [url for url in asked if not url.startswith((server, "blob:", "data:"))] == []
        assert failed == []


def drop(page, photo):
    page.set_input_files("#upload input[type=file]", photo)
    page.wait_for_selector('.viewer-stage[data-state="ready"]')


def settled(page):
    """Wait until pending changes have been drawn."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def canvas(page):
    """Return the canvas's pixels, of shape `(height, width, 3)`."""
    settled(page)
    width, height, values = page.evaluate(
        """() => {
            const canvas = document.querySelector(".viewer-canvas");
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let text = "";
            for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
            return [canvas.width, canvas.height, btoa(text)];
        }"""
    )
    return np.frombuffer(base64.b64decode(values), np.uint8).reshape(height, width, 4)[:, :, :3].astype(int)


def set_opacity(page, percent):
    page.locator(".viewer-opacity input").fill(str(percent))


def test_masks_stay_sharp_and_classes_can_be_hidden(page, photos, segmenter):
    drop(page, photos / "wide.jpg")
    label_map = segmenter(open_image(photos / "wide.jpg")).label_map
    assert re.match(r"320 x 240 pixels, ", page.inner_text("#report"))
    set_opacity(page, 100)
    page.click("[data-zoom=full]")
    found = canvas(page)
    left, top = (found.shape[1] - 320) // 2, (found.shape[0] - 240) // 2
    # At 100 % every pixel has exactly the colour of its class.
    assert np.array_equal(found[top : top + 240, left : left + 320], class_palette(7)[label_map])
    # Enlarged, pixels are squares of one colour.
    for _ in range(6):
        page.click("[data-zoom=in]")
    colours = set(map(tuple, canvas(page).reshape(-1, 3).tolist()))
    assert colours <= {tuple(colour) for colour in class_palette(7).tolist()} | {(0x15, 0x18, 0x1D)}
    assert float(page.inner_text(".viewer-scale").rstrip(" %")) > 1000
    page.click("[data-zoom=fit]")
    before = canvas(page)
    chip = page.locator(".viewer-legend button").first
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    without = canvas(page)
    colour = class_palette(7)[np.bincount(label_map.ravel()).argmax()]
    assert (before == colour).all(axis=2).mean() > 0.1
    assert not (without == colour).all(axis=2).any()
    chip.click()
    assert np.array_equal(canvas(page), before)


def test_the_divider_uncovers_the_photo(page, photos):
    drop(page, photos / "wide.jpg")
    set_opacity(page, 0)
    photo = canvas(page)
    set_opacity(page, 100)
    classes = canvas(page)
    page.focus(".viewer-divider")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.get_attribute(".viewer-divider", "aria-valuenow") == "50"
    middle = photo.shape[1] // 2
    half = canvas(page)
    assert np.array_equal(half[:, : middle - 1], photo[:, : middle - 1])
    assert np.array_equal(half[:, middle + 1 :], classes[:, middle + 1 :])
    box = page.locator(".viewer-divider").bounding_box()
    stage = page.locator(".viewer-stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"], box["y"] + 50)
    page.mouse.up()
    assert np.array_equal(canvas(page), photo)


def test_downloads_equal_the_result(page, photos, segmenter, tmp_path):
    drop(page, photos / "high.jpg")
    with page.expect_download() as started:
        page.click("#label-map")
    started.value.save_as(tmp_path / "label_map.png")
    assert started.value.suggested_filename == "high_label_map.png"
    expected = segmenter(open_image(photos / "high.jpg")).label_map
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "label_map.png")), expected)
    with page.expect_download() as started:
        page.locator("#mattes a").first.click()
    started.value.save_as(tmp_path / "matte.png")
    with PIL.Image.open(tmp_path / "matte.png") as matte:
        assert (matte.size, matte.mode) == (SIZES["high.jpg"], "L")


def test_errors_are_shown_and_the_next_photo_works(page, photos):
    page.set_input_files("#upload input[type=file]", photos / "notes.jpg")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "notes.jpg is not a supported image file" in toast.inner_text()
    assert page.get_attribute(".viewer-stage", "data-state") == "empty"
    page.locator("#upload [aria-label='Clear'], #upload [aria-label='Remove this file']").first.click()
    drop(page, photos / "dot.png")
    assert page.inner_text("#report").startswith("1 x 1 pixels")


def test_bokeh_is_shown_beside_the_photo(page, photos):
    drop(page, photos / "wide.jpg")
    set_opacity(page, 0)
    photo = canvas(page)
    page.click("#blur")
    page.wait_for_selector(".viewer-layers button >> text=Bokeh")
    shown = canvas(page)
    middle = photo.shape[1] // 2
    assert np.array_equal(shown[:, : middle - 1], photo[:, : middle - 1])
    assert np.abs(shown[:, middle + 1 :] - photo[:, middle + 1 :]).max() > 40
    page.click(".viewer-layers button >> text=Classes")
    assert np.array_equal(canvas(page), photo)


def test_two_fingers_zoom_on_a_phone(browser, server, photos):
    size = {"width": 375, "height": 667}
    options = {"viewport": size, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
    with contextlib.closing(browser.new_context(**options)) as context:
        page = context.new_page()
        page.goto(server)
        drop(page, photos / "wide.jpg")
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        page.locator(".viewer-stage").scroll_into_view_if_needed()
        settled(page)
        before = float(page.inner_text(".viewer-scale").rstrip(" %"))
        box = page.locator(".viewer-canvas").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        touch = context.new_cdp_session(page)

        def fingers(kind, *distances):
            points = [{"x": x + distance, "y": y, "id": index} for index, distance in enumerate(distances)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        fingers("touchStart", -20, 20)
        for distance in range(25, 85, 5):
            fingers("touchMove", -distance, distance)
        fingers("touchEnd")
        settled(page)
        assert float(page.inner_text(".viewer-scale").rstrip(" %")) == pytest.approx(4 * before, rel=0.05)
