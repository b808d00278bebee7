"""The page in Chromium: whole tests taken by keyboard. LISTEN_PICTURES=1 writes docs/listen-*.png."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from conftest import ROOT, run_command
from serve.conftest import wait_until
from vocable.evaluation.listening.server import create_app
from vocable.evaluation.listening.study import read_key

pytestmark = pytest.mark.slow
OPTIONS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = which("chromium") or which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not here")
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium, args=OPTIONS, viewport={"width": 1000, "height": 820}
        )
        yield context
        context.close()


class Listener:
    """A listener who has a keyboard alone."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser, self.url, self.errors = browser, url, list[str]()
        self.open()

    def open(self) -> None:
        self.page = self.browser.new_page()
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(self.url)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def title(self) -> str:
        return str(self.page.evaluate("document.activeElement.tagName + ' ' + document.activeElement.innerText"))

    def tab_to(self, name: str) -> None:
        """Press Tab until the element with this text or label has the focus."""
        for _ in range(60):
            self.press("Tab")
            label = self.page.evaluate(
                "(e => e.innerText || e.ariaLabel || e.labels?.[0]?.innerText || e.id)(document.activeElement)"
            )
            if name in label:
                return
        raise AssertionError(f"no {name} on {self.page.inner_text('main')}")

    def activate(self, name: str) -> None:
        self.tab_to(name)
        self.press("Enter")

    def picture(self, name: str) -> None:
        if os.environ.get("LISTEN_PICTURES"):
            time.sleep(0.6)
            self.page.screenshot(path=ROOT / "docs" / f"listen-{name}.png")


def rate_page(listener: Listener, ratings: list[int], picture: str = "") -> None:
    """Hear every version and set every slider to its rating."""
    letters = ["r", *(chr(ord("a") + i) for i in range(len(ratings)))]
    listener.press(*letters)
    for i, rating in enumerate(ratings):
        listener.tab_to(f"Rating of {chr(ord('A') + i)},")
        listener.press("Home", *["PageUp"] * (rating // 10), *["ArrowRight"] * (rating % 10))
        if picture and i == len(ratings) // 2:
            listener.picture(picture)
    listener.activate("Next")


def test_a_mushra_test_by_keyboard_with_a_closed_tab(mushra: Path, browser: Any, tmp_path: Path) -> None:
    key, plan = read_key(mushra / "key.json")
    form = key["forms"][2]
    wanted = {"hidden reference": 100, "anchor 3.5 kHz": 12, "anchor 7 kHz": 47, "fast@:8": 83, "fast@:1": 35}

    def ratings(index: int) -> list[int]:
        return [wanted[key["stimuli"][token]["system"]] for token in form[index]["stimuli"][1:]]

    listener = Listener(browser, (mushra / "public" / "test.html").as_uri())
    assert listener.title() == "H1 Listening test"
    listener.tab_to("Your listener number")
    listener.press("3", "Enter")
    assert listener.title() == "H1 Set the volume"
    listener.activate("Play")
    listener.activate("The volume is set")
    assert listener.title() == "H1 Training 1 of 1"
    listener.activate("Next")
    assert "Please listen to Reference, A" in listener.page.inner_text("main")
    rate_page(listener, [50, 10, 20, 30, 40])
    assert listener.title() == "H1 The test begins"
    listener.activate("Begin")
    for index in range(3):
        assert listener.title() == f"H1 Page {index + 1} of {plan.clips}"
        rate_page(listener, ratings(index), picture="mushra" if index == 1 else "")
    listener.press("a")
    listener.tab_to("Rating of A,")
    listener.press("Home")
    listener.page.close()

    listener.open()
    assert "resumes where you stopped" in listener.page.inner_text("main")
    listener.activate("Resume")
    assert listener.title() == f"H1 Page 4 of {plan.clips}"
    assert listener.page.inner_text(".row output >> nth=0") == "0"  # the slider that was moved before
    for index in range(3, plan.clips):
        rate_page(listener, ratings(index))
    assert listener.title() == "H1 Thank you"
    with listener.page.expect_download() as download:
        listener.activate("Download answers")
    answers = tmp_path / "answers.json"
    download.value.save_as(answers)
    content = json.loads(answers.read_text())
    assert content["listener"] == 3 and content["finished"] and len(content["answers"]) == plan.clips
    assert listener.errors == []
    assert run_command("listen", "report", answers, "--key", mushra / "key.json", "-o", tmp_path / "report") == 0
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert {name: found["value"] for name, found in summary["scores"].items()} == wanted


def test_switching_stays_at_the_same_moment(mushra: Path, browser: Any) -> None:
    listener = Listener(browser, (mushra / "public" / "test.html").as_uri() + "?listener=1")
    listener.activate("Start")
    listener.activate("The volume is set")
    listener.press("a")
    time.sleep(0.8)
    before = listener.page.evaluate("player.position() * player.buffers[0].duration")
    listener.press("b")
    moments = listener.page.evaluate("[player.current, player.position() * player.buffers[0].duration]")
    assert before > 0.3 and moments[0] == 2 and 0 <= moments[1] - before < 0.5
    time.sleep(0.1)
    gains = listener.page.evaluate("player.sources.map(node => node.gain.gain.value)")
    assert gains == [0, 0, 1, 0, 0, 0]
    assert listener.page.inner_text("#status") == "Playing B"
    assert listener.page.get_by_role("button", name="B", exact=True).get_attribute("aria-pressed") == "true"
    wait_until(lambda: listener.page.evaluate("player.current === -1"), 30.0)  # the clip ends
    assert listener.errors == []


@pytest.fixture
def service(mos: Path) -> Iterator[str]:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(create_app(mos), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


def test_a_mos_test_of_the_service_by_keyboard(mos: Path, service: str, browser: Any, tmp_path: Path) -> None:
    key, _ = read_key(mos / "key.json")
    listener = Listener(browser, service)
    number = int(listener.page.url.partition("listener=")[2])
    listener.activate("Start")
    listener.activate("The volume is set")
    while listener.title().startswith("H1 Training"):
        listener.press("p", "3")
        listener.activate("Next")
    listener.activate("Begin")
    given = []
    for index, trial in enumerate(key["forms"][number - 1]):
        listener.press("p", str(trial.get("expected", 1 + index % 5)))
        if index == 1:
            listener.picture("mos")
            listener.page.close()
            listener.open()
            listener.page.goto(f"{service}test?listener={number}")
            listener.activate("Resume")
            assert listener.page.locator("input:checked").count() == 2  # the answer, and the keyboard's check box
            listener.press("p")
        given.append(trial.get("expected", 1 + index % 5))
        listener.activate("Next")
    listener.page.get_by_text("Your answers are stored").wait_for()
    assert listener.errors == []
    stored = list((mos / "answers").glob(f"listener-{number}-*.json"))
    content = json.loads(stored[0].read_text())
    assert [answer["values"] for answer in content["answers"]] == [[value] for value in given]
    assert run_command("listen", "report", *stored, "--key", mos / "key.json", "-o", tmp_path / "report") == 0
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["listeners"][str(number)]["checks_passed"] == 2
