"""The page in a real browser: Chromium, driven by Playwright. Its screenshots go to the test's folder."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import os
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fertools import data
from fertools.contract import INT8_FILE
from fertools.errors import ConfigError, WebError
from fertools.faces import FaceFinder
from fertools.runtime import Predictor
from fertools.runtime.location import shipped_model
from fertools.verification.kit import read_result, write_kit
from fertools.web import PageParts, WebConfig, gather, write_page

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

pytestmark = pytest.mark.slow

#: Debian's names; ``$FERTOOLS_TEST_CHROMIUM`` may name another.
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")

COMPACT = shipped_model("compact")


@pytest.fixture(scope="module")
def chromium() -> str:
    found = os.environ.get("FERTOOLS_TEST_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("there is no Chromium")
    return found


def gathered(detector: str | None = None) -> PageParts:
    try:
        return gather(WebConfig(detector=None if detector is None else Path(detector)))
    except (ConfigError, WebError) as error:
        pytest.skip(str(error))


def written(folder: Path, parts: PageParts) -> Path:
    assert COMPACT is not None
    write_page(parts, COMPACT / "model.int8.onnx", folder)
    return folder


class Server(http.server.SimpleHTTPRequestHandler):
    """What ``python -m http.server`` does, without a log."""

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path, handler: type[Server] = Server) -> Iterator[str]:
    """Serves a folder without any header of its own while the block runs; gives the page's address."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[Path], str]]:
    """Serves a folder till the end of the tests; gives the page's address."""
    with ExitStack() as servers:
        yield lambda folder: servers.enter_context(serving(folder))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("site") / "web", gathered())


@pytest.fixture(scope="module")
def address(site: Path, serve: Callable[[Path], str]) -> str:
    return serve(site)


@pytest.fixture(scope="module")
def launch(chromium: str) -> Iterator[Callable[..., Any]]:
    """Starts a browser with these flags besides the usual ones; all of them are ended."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        yield lambda *more: driver.chromium.launch(executable_path=chromium, args=[*flags, *more])


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Any]) -> Iterator[Any]:
    started = launch()
    yield started
    started.close()


@contextmanager
def loaded(browser: Any, address: str) -> Iterator[Any]:
    """The page at an address; that it asked another origin, or that a script failed, fails the test."""
    context = browser.new_context()
    opened = context.new_page()
    problems: list[str] = []
    opened.on(
        "request", lambda request: problems.append(request.url) if foreign(request.url, address) else None
    )
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(address)
    ready(opened)
    yield opened
    context.close()
    assert not problems


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page."""
    with loaded(browser, address) as opened:
        yield opened


@pytest.fixture
def finding_page(browser: Any, serve: Callable[[Path], str], tmp_path: Path, yunet: str) -> Iterator[Any]:
    """The page with a detector."""
    with loaded(browser, serve(written(tmp_path / "web", gathered(yunet)))) as opened:
        yield opened


def foreign(url: str, address: str) -> list[str]:
    """The address that was asked for, if it is not of the page's own origin."""
    return [] if url.startswith((address, "blob:", "data:")) else [url]


def ready(page: Any) -> None:
    expect(page.locator("html[data-ready]")).to_be_attached(timeout=60_000)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def astronaut() -> np.ndarray:
    picture: np.ndarray = pytest.importorskip("skimage.data").astronaut()
    return picture


def file(content: bytes, name: str = "photo.png", kind: str = "image/png") -> dict[str, Any]:
    return {"name": name, "mimeType": kind, "buffer": content}


def test_images() -> list[np.ndarray]:
    """300 pictures of FER2013's test split, else drawn faces; a third of them in colour and larger."""
    folder = os.environ.get("FERTOOLS_TEST_DATA")
    faces = data.load(str(next(Path(folder).glob("fer2013.*"))) if folder else "synthetic")
    images = list(faces.split("test").images[:300])
    for index in range(0, len(images), 3):
        shape = (100 + index, 90 + index // 2)
        colour = np.stack([images[index], np.roll(images[index], 2, 0), 255 - images[index]], axis=2)
        images[index] = np.asarray(Image.fromarray(colour).resize(shape))
    return images


test_images.__test__ = False  # type: ignore[attr-defined]


def test_three_hundred_images_are_answered_as_by_python(page: Any) -> None:
    pictures = [png(image) for image in test_images()]
    code = """async (pictures) => {
        const { load } = await import("./fertools.js");
        const predictor = await load("model.int8.onnx");
        const answers = [];
        for (const text of pictures) {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            answers.push((await predictor.predict(new Blob([bytes], { type: "image/png" }))).toJSON());
        }
        return { answers, isolated: crossOriginIsolated, backend: predictor.backend };
    }"""
    result = page.evaluate(code, [base64.b64encode(picture).decode() for picture in pictures])
    assert result["isolated"] is False  # no COOP, no COEP
    assert result["backend"]["provider"] == "wasm"
    expected = Predictor("compact", providers="cpu", threads=1).predict_batch(pictures)
    same = [one.label == answer["label"] for one, answer in zip(expected, result["answers"], strict=True)]
    differences = [
        abs(one.probabilities[label] - answer["probabilities"][label])
        for one, answer in zip(expected, result["answers"], strict=True)
        for label in one.probabilities
    ]
    assert len(same) == 300
    assert sum(same) >= 299
    assert max(differences) <= 0.02


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", (1280, 860)), ("phone", (390, 844))])
def test_a_portrait_in_a_frame_is_happy(
    browser: Any, address: str, tmp_path: Path, scheme: str, name: str, size: tuple[int, int]
) -> None:
    """At both sizes and in both colour schemes: the frame is put over the face by the keyboard."""
    phone = name == "phone"
    view = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=view, color_scheme=scheme, has_touch=phone, is_mobile=phone)
    page = context.new_page()
    page.goto(address)
    ready(page)
    page.set_input_files("#choose", file(png(astronaut())))
    expect(page.locator("#label")).not_to_have_text("–")
    page.locator("#size").evaluate(
        "(slider) => { slider.value = 51; slider.dispatchEvent(new Event('input')) }"
    )
    frame = page.locator("#frame")
    frame.focus()
    # To the square that OpenCV's cascade finds, (177, 66) to (272, 161): as far as the keys' steps go.
    wanted, shown = 225 / 512, page.locator("#picture").bounding_box()
    for key, axis, target in (("ArrowLeft", "x", wanted), ("ArrowUp", "y", 113 / 512)):
        for _ in range(150):
            box = frame.bounding_box()
            length = "width" if axis == "x" else "height"
            if box[axis] + box[length] / 2 - shown[axis] <= target * shown[length]:
                break
            frame.press(key)
    expect(page.locator("#label")).to_have_text("Happy")
    assert page.locator("[role=meter]").count() == 7
    page.wait_for_timeout(400)
    page.screenshot(path=tmp_path / f"{name}-{scheme}.png", full_page=True)
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], "the page scrolls sideways"
    context.close()


def test_the_detector_finds_the_portrait(finding_page: Any, yunet: str) -> None:
    page = finding_page
    page.set_input_files("#choose", file(png(astronaut())))
    expect(page.locator("#label")).to_have_text("Happy", timeout=30_000)
    expect(page.locator(".face")).to_have_count(1)
    frame = page.evaluate(
        """async (bytes) => {
        const { loadFinder } = await import("./faces.js");
        const { detector } = await (await fetch("page.json")).json();
        const finder = await loadFinder(detector.file, detector);
        const picture = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
        return (await finder.find(picture))[0].frame;
    }""",
        list(png(astronaut())),
    )
    (face,) = FaceFinder(yunet, longest_side=320).find(astronaut())
    assert abs(complex(frame["x"], frame["y"]) - face.frame.centre) < 0.02 * face.frame.pixels
    assert frame["size"] == pytest.approx(face.frame.pixels, rel=0.02)
    page.set_input_files("#choose", file(png(np.full((300, 400, 3), 90, np.uint8))))
    expect(page.locator("#note")).to_contain_text("No face was found", timeout=30_000)
    expect(page.locator("#label")).to_have_text("–")


def y4m(path: Path, frames: list[np.ndarray]) -> None:
    """An uncompressed video, as Chromium's fake camera plays it: YUV 4:2:0 by BT.601."""
    height, width = frames[0].shape[:2]
    with path.open("wb") as target:
        target.write(f"YUV4MPEG2 W{width} H{height} F30:1 Ip A1:1 C420\n".encode())
        for frame in frames:
            ycbcr = np.asarray(Image.fromarray(frame).convert("YCbCr"))
            target.write(b"FRAME\n" + ycbcr[:, :, 0].tobytes())
            target.write(ycbcr[::2, ::2, 1].tobytes() + ycbcr[::2, ::2, 2].tobytes())


def test_frames_of_a_camera_flow(launch: Callable[..., Any], address: str, tmp_path: Path) -> None:
    picture = astronaut()
    y4m(tmp_path / "camera.y4m", [picture[20 + i : 260 + i, 60 + i : 380 + i] for i in range(30)])
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    started = launch(*flags, f"--use-file-for-fake-video-capture={tmp_path}/camera.y4m")
    page = started.new_context(permissions=["camera"]).new_page()
    page.goto(address)
    ready(page)
    page.click("#camera")
    expect(page.locator("#rate")).to_contain_text("per second", timeout=30_000)
    expect(page.locator("#label")).not_to_have_text("–")
    seen = "() => document.querySelector('#seen').toDataURL()"
    pictures = set()
    for _ in range(50):
        pictures.add(page.evaluate(seen))
        if len(pictures) >= 3:
            break
        page.wait_for_timeout(100)
    assert len(pictures) >= 3, "the network is given new frames"
    page.click("#camera")
    expect(page.locator("#empty")).to_be_visible()
    started.close()


def test_the_cameras_of_a_computer_are_switched(launch: Callable[..., Any], address: str) -> None:
    """They face nowhere, as far as is known."""
    flags = ("--use-fake-device-for-media-stream=device-count=2", "--use-fake-ui-for-media-stream")
    started = launch(*flags)
    page = started.new_context(permissions=["camera"]).new_page()
    page.goto(address)
    ready(page)
    page.click("#camera")
    on = "document.querySelector('#video').srcObject?.getVideoTracks()[0].getSettings().deviceId"
    shown = []
    for _ in range(3):
        expect(page.locator("#switch")).to_be_visible(timeout=30_000)
        shown.append(page.evaluate(on))
        page.click("#switch")
    assert shown[0] == shown[2] != shown[1]
    started.close()


def test_the_cameras_of_a_phone_are_switched_by_where_they_face(page: Any) -> None:
    page.evaluate(FAKE_CAMERA)
    phone = """() => {
        const { getUserMedia } = navigator.mediaDevices;
        window.asked = [];
        navigator.mediaDevices.getUserMedia = ({ video: { facingMode } }) => {
            asked.push(facingMode);
            MediaStreamTrack.prototype.getSettings = () => ({ facingMode });
            return getUserMedia();
        };
        navigator.mediaDevices.enumerateDevices = async () => Array(3).fill({ kind: "videoinput" });
    }"""
    page.evaluate(phone)
    page.click("#camera")
    for _ in range(2):
        page.evaluate("ask.shift()()")
        page.click("#switch")
    assert page.evaluate("asked") == ["user", "environment", "user"]


def test_after_a_camera_that_cannot_be_used_the_usual_one_is_asked_for(page: Any) -> None:
    page.evaluate(FAKE_CAMERA)
    unplugged = """() => {
        const { getUserMedia } = navigator.mediaDevices;
        navigator.mediaDevices.getUserMedia = ({ video }) =>
            video.deviceId ? Promise.reject(new DOMException("", "OverconstrainedError")) : getUserMedia();
        navigator.mediaDevices.enumerateDevices = async () =>
            ["one", "two"].map((deviceId) => ({ kind: "videoinput", deviceId }));
    }"""
    page.evaluate(unplugged)
    page.click("#camera")
    page.evaluate("ask.shift()()")
    page.click("#switch")
    expect(page.locator("#message")).to_contain_text("cannot be used")
    page.click("#camera")
    page.evaluate("ask.shift()()")
    expect(page.locator("#camera")).to_have_text("Stop the camera")


def test_a_refused_camera_is_told(page: Any) -> None:
    page.context.clear_permissions()
    refuse = """() => {
        navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotAllowedError"));
    }"""
    page.evaluate(refuse)
    page.click("#camera")
    expect(page.locator("#message")).to_contain_text("The camera was refused")
    page.set_input_files("#choose", file(png(astronaut())))
    expect(page.locator("#message")).to_be_hidden()


#: A camera whose permission is given by hand: `ask.shift()()` allows the first request that is open. It films
#: `film`, a canvas; all streams that were given are in `given`.
FAKE_CAMERA = """() => {
    Object.assign(window, { film: document.createElement("canvas"), ask: [], given: [] });
    Object.assign(film, { width: 320, height: 240 });
    window.paint = () => film.getContext("2d").fillRect(0, 0, film.width, film.height);
    setInterval(() => paint(), 30);
    navigator.mediaDevices.getUserMedia = () => new Promise((resolve) => ask.push(() => {
        given.push(film.captureStream());
        resolve(given.at(-1));
    }));
}"""

CAMERAS_ON = "given.filter((one) => one.getTracks().some(({ readyState }) => readyState === 'live')).length"


def test_a_camera_asked_for_twice_is_switched_off(page: Any) -> None:
    page.evaluate(FAKE_CAMERA)
    page.click("#camera")
    page.click("#camera")
    page.evaluate("ask.reverse().forEach((allow) => allow())")
    expect(page.locator("#camera")).to_have_text("Stop the camera")
    page.click("#camera")
    expect(page.locator("#empty")).to_be_visible()
    assert page.evaluate(f"[given.length, {CAMERAS_ON}]") == [2, 0]


def test_a_photo_given_while_the_camera_is_asked_for_stays(page: Any) -> None:
    page.evaluate(FAKE_CAMERA)
    page.click("#camera")
    page.set_input_files("#choose", file(png(astronaut())))
    expect(page.locator("#label")).not_to_have_text("–")
    page.evaluate("ask.shift()()")
    page.wait_for_timeout(200)
    assert page.evaluate(f"[given.length, {CAMERAS_ON}]") == [1, 0]
    expect(page.locator("#photo")).to_be_visible()
    expect(page.locator("#camera")).to_have_text("Use the camera")


def test_a_camera_that_cannot_be_played_is_switched_off(page: Any) -> None:
    page.evaluate(FAKE_CAMERA)
    page.evaluate("() => { HTMLVideoElement.prototype.play = () => Promise.reject(new Error('no power')); }")
    page.click("#camera")
    page.evaluate("ask.shift()()")
    expect(page.locator("#message")).to_have_text("no power")
    expect(page.locator("#camera")).to_have_text("Use the camera")
    assert page.evaluate(CAMERAS_ON) == 0


def test_a_turned_camera_turns_the_page(page: Any) -> None:
    page.evaluate(FAKE_CAMERA)
    page.click("#camera")
    page.evaluate("ask.shift()()")
    picture = page.locator("#picture")
    expect(picture).to_have_attribute("style", re.compile(r"--ratio: 1\.33"))
    page.evaluate("Object.assign(film, { width: 240, height: 320 })")
    expect(picture).to_have_attribute("style", re.compile(r"--ratio: 0\.75"))
    expect(page.locator("#frame")).to_be_visible()
    frame = page.locator("#frame").bounding_box()
    assert frame["width"] == pytest.approx(frame["height"], rel=0.03), (
        "the frame is square in the turned picture"
    )


def test_the_bars_stay_with_a_person(finding_page: Any) -> None:
    """Two faces are filmed. The one chosen is the smaller and becomes the larger."""
    page = finding_page
    page.evaluate(FAKE_CAMERA)
    paint = """async (bytes) => {
        const face = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
        Object.assign(film, { width: 640, height: 320 });
        window.sizes = [320, 240];
        window.paint = () => {
            paper.fillRect(0, 0, 640, 320);
            // The face is at (0.44, 0.22) of the portrait, and stays where it is.
            sizes.forEach((size, i) => {
                paper.drawImage(face, 160 + 320 * i - 0.44 * size, 80 - 0.22 * size, size, size);
            });
        };
        const paper = film.getContext("2d");
    }"""
    page.evaluate(paint, list(png(astronaut())))
    page.click("#camera")
    page.evaluate("ask.shift()()")
    expect(page.locator(".face")).to_have_count(2, timeout=30_000)
    page.evaluate("document.querySelectorAll('.face')[1].click()")
    chosen = page.locator(".face[aria-pressed=true]")
    expect(chosen).to_have_attribute("aria-label", re.compile("Face 2 of 2"))
    before = chosen.bounding_box()
    page.evaluate("sizes.reverse()")
    expect(chosen).to_have_attribute("aria-label", re.compile("Face 1 of 2"), timeout=30_000)
    assert abs(chosen.bounding_box()["x"] - before["x"]) < before["width"] / 2


def test_of_two_photos_the_later_one_is_shown(page: Any) -> None:
    """Though the earlier one takes longer to decode."""
    slow = """() => {
        const decode = createImageBitmap;
        window.createImageBitmap = async (...all) => {
            const bitmap = await decode(...all);
            if (all[0].name === "slow.png") await new Promise((resolve) => { window.finish = resolve; });
            return bitmap;
        };
    }"""
    page.evaluate(slow)
    page.set_input_files("#choose", file(png(astronaut()), "slow.png"))
    page.set_input_files("#choose", file(png(astronaut()), "fast.png"))
    expect(page.locator("#photo")).to_have_attribute("aria-label", "The photo fast.png")
    page.evaluate("finish()")
    page.wait_for_timeout(200)
    expect(page.locator("#photo")).to_have_attribute("aria-label", "The photo fast.png")


def test_a_browser_without_from_image_turns_photos(page: Any) -> None:
    """As Chrome before 112: it knows no such value, and applies EXIF turns by default."""
    old = """() => {
        const decode = createImageBitmap;
        window.createImageBitmap = async (file, options = {}) => {
            if (options.imageOrientation === "from-image") throw new TypeError("not a valid enum value");
            return decode(file, options);
        };
    }"""
    page.evaluate(old)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    buffer = io.BytesIO()
    Image.fromarray(astronaut()[:200]).save(buffer, "JPEG", exif=exif)
    page.set_input_files("#choose", file(buffer.getvalue(), "photo.jpg", "image/jpeg"))
    expect(page.locator("#photo")).to_be_visible()
    assert page.evaluate("(({ width, height }) => [width, height])(document.querySelector('#photo'))") == [
        200,
        512,
    ]


#: Drops or pastes a photo; whether the browser would still do with it what browsers do.
GIVE = """([way, bytes]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], "photo.png", { type: "image/png" }));
    const event = way === "drop"
        ? new DragEvent("drop", { dataTransfer: transfer, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: transfer, cancelable: true });
    return document.dispatchEvent(event);
}"""


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photo_is_dropped_and_pasted(page: Any, way: str) -> None:
    expect(page.locator("#label")).to_have_text("–")
    page.evaluate(GIVE, [way, list(png(astronaut()))])
    expect(page.locator("#label")).not_to_have_text("–")
    expect(page.locator("#message")).to_be_hidden()


@pytest.mark.parametrize("model", ["good", "missing"])
def test_a_photo_dropped_while_the_model_is_loaded_waits_for_it(
    browser: Any, address: str, model: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    held: list[Any] = []
    page.route("**/*.onnx", lambda route: held.append(route))
    with page.expect_request("**/*.onnx"):
        page.goto(address)
    assert page.evaluate(GIVE, ["drop", list(png(astronaut()))]) is False
    expect(page.locator("#empty")).to_be_visible()
    if model == "good":
        held.pop().continue_()
        expect(page.locator("#label")).not_to_have_text("–", timeout=60_000)
        expect(page.locator("#message")).to_be_hidden()
    else:
        held.pop().fulfill(status=404)
        expect(page.locator("#message")).to_contain_text("model.int8.onnx: ", timeout=60_000)
        expect(page.locator("#empty")).to_be_visible()
    context.close()


def test_a_text_file_dropped_as_a_photo_is_told(page: Any) -> None:
    drop = """() => {
        const transfer = new DataTransfer();
        transfer.items.add(new File(["hello"], "notes.txt", { type: "text/plain" }));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
    }"""
    page.evaluate(drop)
    expect(page.locator("#message")).to_contain_text("notes.txt: not an image that this browser can read")


def test_a_truncated_model_is_told(
    browser: Any, serve: Callable[[Path], str], site: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(site, tmp_path / "web"))
    model = folder / "model.int8.onnx"
    model.write_bytes(model.read_bytes()[:-5000])
    page = browser.new_page()
    page.goto(serve(folder))
    expect(page.locator("#message")).to_contain_text(
        "model.int8.onnx: not a model exported by fertools", timeout=30_000
    )
    expect(page.locator("#choose")).to_be_disabled()
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", (1280, 860)), ("phone", (390, 844))])
def test_a_kit_is_run_and_its_result_accepted(
    browser: Any, address: str, tmp_path: Path, scheme: str, name: str, size: tuple[int, int]
) -> None:
    assert COMPACT is not None
    write_kit(COMPACT, tmp_path / "kit.zip", images=40)
    view = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=view, color_scheme=scheme, is_mobile=name == "phone")
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.extend(foreign(request.url, address)))
    page.goto(address)
    page.get_by_role("link", name="Prove a model on this device").click()
    ready(page)
    page.set_input_files("#choose", file(b"hello", "notes.zip", "application/zip"))
    expect(page.locator("#message")).to_contain_text("notes.zip: not a kit")
    page.fill("#name", "a test")
    page.set_input_files("#choose", tmp_path / "kit.zip")
    expect(page.locator("#verdict")).to_have_text("It answers as it did", timeout=60_000)
    expect(page.locator("#message")).to_be_hidden()
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "result.json"
    download.value.save_as(tmp_path / "result.json")
    report = read_result(COMPACT, tmp_path / "result.json")
    report.check()
    assert (report.processor, report.machine, report.provider, report.threads) == (
        "a test",
        "wasm",
        "wasm",
        1,
    )
    assert len(report.rows) == page.locator("#rows tr").count() == 2
    assert all(row.difference <= 0.02 for row in report.rows)
    table = page.evaluate(
        "(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])(document.querySelector('.scroll'))"
    )
    assert table[0] <= table[1], "the table is cut off"
    page.screenshot(path=tmp_path / f"check-{name}-{scheme}.png", full_page=True)
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], "the page scrolls sideways"
    context.close()
    assert not asked


def test_a_kit_that_fails_is_told(page: Any, address: str, tmp_path: Path) -> None:
    """In a live region, and in the file's row by more than its colour."""
    assert COMPACT is not None
    write_kit(COMPACT, tmp_path / "good.zip", images=20)
    with (
        zipfile.ZipFile(tmp_path / "good.zip") as good,
        zipfile.ZipFile(tmp_path / "kit.zip", "w") as changed,
    ):
        for name in good.namelist():
            content = good.read(name)
            if name == f"{INT8_FILE}.f32":
                content = np.roll(np.frombuffer(content, np.float32).reshape(20, -1), 1, 1).tobytes()
            changed.writestr(name, content)
    page.goto(f"{address}check.html")
    ready(page)
    page.set_input_files("#choose", tmp_path / "kit.zip")
    expect(page.locator("[aria-live]")).to_contain_text("It does not: the same class on less", timeout=60_000)
    assert ["fails" in row for row in page.locator("#rows tr").all_inner_texts()] == [
        row.startswith(INT8_FILE) for row in page.locator("#rows tr").all_inner_texts()
    ]


def age(folder: Path) -> None:
    """Date a page long ago: servers tell versions apart by the second, browsers keep old files for longer."""
    for path in folder.iterdir():
        os.utime(path, (0, 0))


def kept(page: Any) -> None:
    """Wait until the service worker has all of the page."""
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")


def visit(page: Any, address: str) -> None:
    """Open the page and wait until it works, offline too."""
    page.goto(address)
    ready(page)
    kept(page)


def test_a_new_page_is_seen_at_once(
    browser: Any, serve: Callable[[Path], str], site: Path, tmp_path: Path
) -> None:
    """Its scripts too, though its server does not say for how long its files may be kept."""
    folder = Path(shutil.copytree(site, tmp_path / "web"))
    age(folder)
    address = serve(folder)
    context = browser.new_context()
    page = context.new_page()
    for _ in range(2):  # what the second visit loads, the service worker sends
        visit(page, address)
    settings = json.loads((folder / "page.json").read_text())
    (folder / "page.json").write_text(json.dumps(settings | {"fertools": "newer"}))
    with (folder / "page.js").open("a") as script:
        script.write('document.title = "newer";')
    page.goto(address)
    ready(page)
    expect(page.locator("#version")).to_have_text("newer")
    expect(page).to_have_title("newer")
    context.close()


def test_it_works_without_its_server(browser: Any, site: Path) -> None:
    """Once loaded: the service worker has all of it."""
    context = browser.new_context()
    page = context.new_page()
    with serving(site) as address:
        visit(page, address)
    page.reload()
    ready(page)
    page.goto(f"{address}?utm_source=elsewhere")
    ready(page)
    page.set_input_files("#choose", file(png(astronaut())))
    expect(page.locator("#label")).not_to_have_text("–")
    context.close()


def test_without_its_server_all_of_it_is_of_the_newest_version(browser: Any, tmp_path: Path) -> None:
    """Also what nobody has visited since; what others keep at this address is left alone."""
    parts = gathered()
    folder = written(tmp_path / "web", parts)
    age(folder)
    context = browser.new_context()
    page = context.new_page()
    with serving(folder) as address:
        visit(page, address)
        (before,) = page.evaluate("caches.keys()")
        others = [f"fertools {address}other/ 1", "theirs"]
        page.evaluate("(others) => Promise.all(others.map((name) => caches.open(name)))", others)
        html = parts.ours["check.html"].replace(b"<title>", b"<title>Newer: ")
        written(folder, replace(parts, ours=parts.ours | {"check.html": html}))
        page.goto(address)
        for _ in range(300):
            if before not in page.evaluate("caches.keys()"):
                break
            page.wait_for_timeout(100)
    found = page.evaluate("caches.keys()")
    assert len(found) == 3
    assert {*others} < {*found} - {before}
    page.goto(f"{address}check.html")
    ready(page)
    expect(page).to_have_title(re.compile("Newer: "))
    context.close()


class Redirecting(Server):
    """As some hosts of static pages do: /check.html leads to /check, and /index.html to /."""

    def do_GET(self) -> None:
        """Redirect, or send the file."""
        if self.path.endswith(".html"):
            self.send_response(308)
            self.send_header("Location", self.path.removesuffix(".html").removesuffix("index"))
            self.end_headers()
            return
        if self.path == "/check":
            self.path = "/check.html"
        super().do_GET()


def test_it_works_without_a_server_that_redirected(browser: Any, site: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    with serving(site, Redirecting) as address:
        visit(page, address)
        page.goto(f"{address}check.html")
        ready(page)
    for name in ("check.html", "index.html"):
        page.goto(f"{address}{name}")
        ready(page)
    context.close()
