"""The page in a browser, served by a process with the shipped models. PAGE_PICTURES=1 writes docs/page-*.png."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from conftest import ROOT, SPEECH
from serve.conftest import wait_until
from vocable import audio
from vocable.serve import Settings, create_app

pytest.importorskip("gradio", reason="pip install 'vocable[serve]'")
shipped_models = pytest.mark.skipif(not (ROOT / "models" / "uslm").is_dir(), reason="the language models are not here")
PATIENCE = 240.0  #: seconds for a result: the machine may be busy
LARGEST_PICTURE = 150_000  #: bytes
#: Attributes of elements by which a browser loads something.
LOADED = "[src], link[href], [srcset], object[data], form[action]"


def test_the_page_can_be_left_out(settings: Settings) -> None:
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
        assert client.get("/").status_code == 404


def test_a_wrong_method_is_405_beside_the_page(settings: Settings) -> None:
    app = create_app(dataclasses.replace(settings, page=True))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        assert client.get("/").status_code == 200 and client.get("/v1/nothing").status_code == 404
        answer = client.get("/v1/audio/speech")
        assert answer.status_code == 405 and answer.headers["allow"] == "POST"
        assert "error" in answer.json()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("page") / "log", "page", "--no-browser") as url:
        yield url


@contextmanager
def served(log: Path, *command: str) -> Iterator[str]:
    """Run `vocable page` or `vocable serve`; yields the address of the page."""
    command = (sys.executable, "-m", "vocable", *command, "--port", "0")
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT) as process:
        try:
            address = re.compile(r"(http://\S+) \((?:Press CTRL|Ctrl)")
            wait_until(lambda: address.search(log.read_text()) or process.poll() is not None, PATIENCE)
            found = address.search(log.read_text())
            assert found, log.read_text()
            yield found[1]
        finally:
            process.terminate()
            process.wait(30)
    assert "Traceback" not in log.read_text(), log.read_text()


class Window:
    """A window of Chromium that shows the page; its microphone hears a file."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.errors: list[str] = []  #: of the console
        self.hosts: set[str] = set()  #: that the page has asked for something
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(url)
        page.get_by_text("frames per second").wait_for()  # the models are loaded

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def record(self, block: str, seconds: float = 3.0) -> None:
        self.page.locator(f"#{block} .record-button").click()
        time.sleep(seconds)
        self.page.locator(f"#{block} button.stop-button").click()
        self.hear(block)

    def upload(self, block: str, file: Path) -> None:
        self.page.locator(f"#{block} button[aria-label='Upload file']").click()
        self.page.locator(f"#{block} input[type=file]").set_input_files(file)
        self.hear(block)

    def hear(self, block: str) -> float:
        """Wait until a player holds audio that the browser can play; return its seconds."""

        def seconds() -> float:
            durations = self.page.locator(f"#{block} audio").evaluate_all("all => all.map(one => one.duration || 0)")
            return max(durations, default=0.0)

        wait_until(lambda: seconds() > 0, PATIENCE)
        return seconds()

    def picture(self, name: str) -> None:
        if not os.environ.get("PAGE_PICTURES"):
            return
        time.sleep(1.5)  # until the waveforms are drawn
        path = ROOT / "docs" / f"page-{name}.png"
        self.page.screenshot(path=path, full_page=True)
        _shrink(path)
        assert path.stat().st_size < LARGEST_PICTURE, path


def _shrink(path: Path) -> None:
    """Reduce a picture to 128 colours, which the eye does not miss."""
    image = pytest.importorskip("PIL.Image")
    with image.open(path) as picture:
        picture.convert("RGB").quantize(128).save(path, optimize=True)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two short recordings, from two parts of the speech of the tests."""
    folder = tmp_path_factory.mktemp("recordings")
    waveform, rate = audio.read(SPEECH, 16000)
    for name, start in (("a", 0), ("b", 4)):
        audio.write(folder / f"{name}.wav", waveform[start * rate : (start + 3) * rate], rate)
    return folder / "a.wav", folder / "b.wav"


@pytest.fixture
def window(url: str, recordings: tuple[Path, Path]) -> Iterator[Window]:
    with opened(url, recordings[0]) as window:
        yield window


@contextmanager
def opened(url: str, microphone: Path, *, width: int = 1200, **options: Any) -> Iterator[Window]:
    """Open the page in Chromium. options: of its context."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = which("chromium") or which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not here")
    switches = [
        "--no-sandbox",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
    ]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=switches)
        context = browser.new_context(viewport={"width": width, "height": 860}, permissions=["microphone"], **options)
        shown = Window(context.new_page(), url)
        yield shown
        elsewhere = shown.page.locator(LOADED).evaluate_all(
            """all => all.flatMap(one => [one.src, one.href, one.srcset, one.data, one.action])
                .filter(url => /^(https?:)?\\/\\//.test(url) && new URL(url, location).host !== location.host)"""
        )
        browser.close()
    assert shown.errors == []
    assert shown.hosts <= {urlsplit(url).netloc, ""}  # "": data: and blob:
    assert elsewhere == []


def on_the_page(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.slow(shipped_models(test))


@on_the_page
def test_a_recording_becomes_tokens(window: Window) -> None:
    window.record("tokens-source")
    recorded = window.hear("tokens-source")
    window.page.locator("#tokens-figure img").wait_for()
    assert window.hear("tokens-decoded") == pytest.approx(recorded, abs=0.1)
    window.page.locator("#tokens-facts").get_by_text("4000").wait_for()
    window.picture("tokens")

    window.page.locator("#tokens-layers input[type=range]").fill("1")
    window.page.locator("#tokens-facts").get_by_text("500", exact=True).wait_for()
    with window.page.expect_download() as download:
        window.page.locator("#tokens-download").click()
    assert download.value.suggested_filename == "tokens.safetensors"
    encoded = _load(download.value.path())
    assert encoded.codes.shape[:2] == (1, 1)
    assert int(encoded.num_samples) / encoded.sample_rate == pytest.approx(recorded, abs=0.1)


def _load(path: Path) -> Any:
    from vocable.codec.tokens import Encoded

    return Encoded.from_bytes(path.read_bytes())


@on_the_page
def test_layers_are_swapped(window: Window, recordings: tuple[Path, Path]) -> None:
    window.tab("Layers")
    window.upload("layers-a", recordings[0])
    window.upload("layers-b", recordings[1])
    window.page.locator("#layers-swap").click()
    assert window.hear("layers-forward") == pytest.approx(3, abs=0.1)
    assert window.hear("layers-backward") == pytest.approx(3, abs=0.1)
    window.page.locator("#layers-figure img").wait_for()
    window.picture("layers")


@on_the_page
def test_a_recording_is_converted(window: Window, recordings: tuple[Path, Path]) -> None:
    window.tab("Convert")
    window.upload("convert-source", recordings[0])
    window.upload("convert-voice", recordings[1])
    window.page.locator("#convert-start").click()
    window.page.locator("#convert-stop:enabled").click()
    window.page.locator("#convert-start:enabled").click()  # the page can be used again after a stop
    assert window.hear("convert-result") == pytest.approx(3, abs=0.1)
    window.picture("convert")


@on_the_page
def test_a_text_is_spoken_and_its_words_are_lit(window: Window) -> None:
    window.tab("Speak")
    page = window.page
    page.locator("#speak-text textarea").fill("The rain has gone. Good morning to you.")
    page.get_by_role("button", name="Options").click()
    page.get_by_role("spinbutton", name="Takes").fill("2")
    page.locator("#speak-start").click()
    page.locator("#speak-speech .word.lit").first.wait_for()
    assert 1 < window.hear("speak-whole") < 20
    page.locator("#speak-speech .play:not(.playing)").wait_for()  # it ends with the last sentence
    spoken = page.locator("#speak-speech .word").all_inner_texts()
    assert spoken == ["The", "rain", "has", "gone.", "Good", "morning", "to", "you."]
    assert page.locator("#speak-speech .word.spoken").count() == len(spoken)
    page.locator("#speak-speech .word").nth(4).click()
    page.locator("#speak-speech .word.lit").get_by_text("Good").wait_for()
    page.locator("#speak-speech .play").click()  # a pause
    window.picture("speak")


@on_the_page
def test_versions_are_compared_without_their_names(window: Window, recordings: tuple[Path, Path]) -> None:
    window.tab("Compare")
    window.upload("compare-source", recordings[0])
    window.page.locator("#compare-start").click()
    names = ["original", ":1", ":2", ":8"]
    for letter, name in zip("ABCD", names, strict=True):
        assert window.hear(f"compare-{letter}") == pytest.approx(3, abs=0.1)
        window.page.locator(f"#compare-guess-{letter}").get_by_label(name, exact=True).check()
    window.page.locator("#compare-reveal").click()
    answers = window.page.locator("#compare-answer b")
    answers.first.wait_for()
    assert sorted(answer[3:] for answer in answers.all_inner_texts()) == sorted(names)
    window.picture("compare")


@on_the_page
def test_the_page_says_what_is_missing(window: Window) -> None:
    window.tab("Convert")
    window.page.locator("#convert-start").click()
    window.page.get_by_text("record or upload a source and a voice first").wait_for()


@on_the_page
def test_the_page_fits_a_telephone(url: str, recordings: tuple[Path, Path]) -> None:
    with opened(url, recordings[0], width=390) as window:
        for name in ("Tokens", "Layers", "Convert", "Speak", "Compare"):
            window.tab(name)
            assert window.page.evaluate("document.documentElement.scrollWidth") <= 390, name
        window.tab("Tokens")
        window.record("tokens-source")
        window.page.locator("#tokens-figure img").wait_for()
        assert window.page.evaluate("document.documentElement.scrollWidth") <= 390


@on_the_page
def test_a_key_and_a_prepared_voice(recordings: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "voices").mkdir()
    with served(tmp_path / "log", "serve", "--api-key", "secret", "--voices", str(tmp_path / "voices")) as url:
        assert httpx.get(url).status_code == 401
        headers = {"Authorization": "Bearer secret"}
        wait_until(lambda: httpx.get(f"{url}/health/ready").status_code == 200, PATIENCE)
        form = {"name": "anna", "consent": "the speaker agreed"}
        files = {"audio_sample": recordings[1].read_bytes()}
        created = httpx.post(f"{url}/v1/audio/voices", data=form, files=files, headers=headers, timeout=PATIENCE)
        assert created.status_code == 201, created.text
        login = {"username": "any", "password": "secret"}
        with opened(url, recordings[0], http_credentials=login) as window:
            window.tab("Speak")
            window.page.locator("#speak-text textarea").fill("Good morning.")
            window.page.get_by_label("Voice").first.click()
            window.page.get_by_role("option", name="anna").click()
            window.page.locator("#speak-start").click()
            assert 0.3 < window.hear("speak-whole") < 10
