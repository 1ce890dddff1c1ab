"""A real Chromium, driven by Selenium, that talks to nobody but the pages under test."""

import base64
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tools.paths import PROJECT

SCREENSHOTS = PROJECT / "build" / "screenshots"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-proxy-server",
)
WAIT_SECONDS = 40


class Browser:
    """A window of Chromium."""

    def __init__(self, driver: webdriver.Chrome):
        self.driver = driver

    def show(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Be a screen of a size, in light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def text(self, selector: str) -> str:
        """The text of the first element, empty while there is none."""
        return self.run(f"return document.querySelector({selector!r})?.textContent ?? ''")

    def run(self, script: str):
        return self.driver.execute_script(script)

    def wait(self, met: Callable[[], object], what: str):
        """What `met` gives once that is true; fails when it does not become so."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not (found := met()):
            assert time.monotonic() < deadline, f"waited {WAIT_SECONDS} s for {what}: {self.text('main')[:2000]}"
            time.sleep(0.2)
        return found

    def shoot(self, name: str, width: int, dark: bool = False) -> None:
        """Save a picture of the page, as long as it is, among the screenshots."""
        self.show(width, 900, dark)
        time.sleep(0.3)  # charts take their new size
        self.show(width, min(6_000, self.run("return document.documentElement.scrollHeight")), dark)
        time.sleep(0.3)
        picture = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = SCREENSHOTS / f"{name}-{width}-{'dark' if dark else 'light'}.png"
        file.write_bytes(base64.b64decode(picture["data"]))

    def complaints(self) -> list[str]:
        """What the console has told since the last time, but for notes."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]


@contextmanager
def chromium() -> Iterator[Browser]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.fail("no Chromium, or no driver of it: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        window = webdriver.Chrome(options, Service(driver))
        try:
            yield Browser(window)
        finally:
            window.quit()
