"""The studio in the system's Chromium, on the real service with the fake engine in its worker."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from api.server.testing import as_file
from deploy.first_steps import DEMO_FACE
from deploy.local import LocalService
from tests.harness import FAKE

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
AXE = files("axe_playwright_python") / "axe.min.js"
PATIENCE = 60_000
"""Milliseconds to wait for something on a busy machine."""

if CHROMIUM is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str:
    return "" if CHROMIUM else "tests/studio: skipped, there is no Chromium on this machine"


class Studio:
    """A page of the studio, and everything that went wrong on it."""

    def __init__(self, page, service: LocalService) -> None:
        self.page, self.service = page, service
        self.faults: list[str] = []
        self.allowed: tuple[str, ...] = ()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda said: said.type in ("error", "warning") and self.faults.append(said.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if not url.startswith((f"{self.service.url}/", "data:", "blob:")):
            self.faults.append(f"asked another host: {url}")

    def open(self, screen: str = ""):
        self.page.goto(f"{self.service.url}/#/{screen}")
        self.page.wait_for_selector("main > *")
        return self.page

    def add_photos(self, *photos: Path) -> None:
        self.page.set_input_files("input[type=file]", [str(photo) for photo in photos])

    def begin(self, photo: Path, name: str) -> str:
        """Make a person of a photo; its id, when the page of the person is there."""
        self.open("new")
        self.add_photos(photo)
        self.page.wait_for_selector(".photo.is-accepted")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("has agreed").check()
        self.page.get_by_role("button", name="Begin").click()
        self.page.wait_for_selector(f"h1:has-text('{name}')")
        return self.page.url.rpartition("/")[2]

    def ready(self) -> None:
        """Wait until the person on the page is."""
        self.page.wait_for_selector(".facts >> text=Likeness")

    def settle(self) -> None:
        """Wait until nothing is being made."""
        self.page.wait_for_selector(".sheet .is-making", state="detached")

    def check(self) -> None:
        found = [fault for fault in self.faults if not any(text in fault for text in self.allowed)]
        assert found == []


@pytest.fixture(scope="module")
def browser():
    """Of the module alone: while Playwright runs, no other test in the process could call asyncio.run."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """A service of the module's own: tests kill its parts."""
    with LocalService(tmp_path_factory.mktemp("studio"), environ=FAKE) as running:
        yield running


@pytest.fixture
def script(service: LocalService) -> Iterator[Callable[..., None]]:
    """How the fake engine behaves, for this test."""
    file = service.folder / "fake-engine.json"
    yield lambda **values: file.write_text(json.dumps(values))
    file.unlink(missing_ok=True)


@pytest.fixture
def studio(browser, service: LocalService) -> Iterator[Studio]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    studio = Studio(context.new_page(), service)
    yield studio
    context.close()
    studio.check()


@pytest.fixture(scope="session")
def face() -> Path:
    """A person who does not exist."""
    return DEMO_FACE


@pytest.fixture(scope="session")
def other_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same one, a little darker: another photo."""
    from PIL import Image

    file = tmp_path_factory.mktemp("photos") / "darker.jpg"
    with Image.open(DEMO_FACE) as image:
        file.write_bytes(as_file(image.convert("RGB").point(lambda value: int(value * 0.85))))
    return file


@pytest.fixture(scope="session")
def no_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    file = tmp_path_factory.mktemp("photos") / "wall.png"
    Image.new("RGB", (200, 160), (150, 140, 130)).save(file)
    return file
