"""Chromium without a window, driven over WebDriver: pages as they are laid out, in both colour schemes."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Browser", "browser"]

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


class Browser:
    """One session of a driver that runs.

    Args:
        port: The driver's.
        binary: The browser.
        profile: An empty folder for its profile.
    """

    def __init__(self, port: int, binary: str, profile: Path) -> None:
        self._port = port
        self._session = ""
        options = {"binary": binary, "args": [*_FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        found = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{found['sessionId']}"

    def show(
        self, page: Path, *, width: int, scheme: str = "light", medium: str = "screen"
    ) -> None:
        """Opens a page from its file, in a window of some width, in a colour scheme, on screen or paper."""
        self.cdp("Network.emulateNetworkConditions", offline=True, latency=0,
                 downloadThroughput=0, uploadThroughput=0)  # fmt: skip
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=900,
                 deviceScaleFactor=1, mobile=False)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.cdp("Emulation.setEmulatedMedia", media=medium, features=features)
        self._ask("POST", f"{self._session}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """What a script returns in the page."""
        body = {"script": script, "args": []}
        return self._ask("POST", f"{self._session}/execute/sync", body)

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the browser's own protocol."""
        body = {"cmd": command, "params": parameters}
        return self._ask("POST", f"{self._session}/goog/cdp/execute", body)

    def picture(self) -> bytes:
        """The whole page as PNG."""
        found = self.cdp("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def close(self) -> None:
        """Ends the browser."""
        self._ask("DELETE", self._session)

    def _ask(self, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            connection.request(verb, path, data, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(answer["message"])
        return answer


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser; the test is skipped where there is none, or no driver for it.

    Args:
        profile: An empty folder.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    binary = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium, or no chromedriver, on this machine")
    with subprocess.Popen(
        [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            opened = Browser(_port(process), binary, profile)
            try:
                yield opened
            finally:
                opened.close()
        finally:
            process.terminate()


def _port(process: subprocess.Popen[str]) -> int:
    """The port that a driver says it has."""
    assert process.stdout is not None
    end = time.monotonic() + 30
    while time.monotonic() < end:
        line = process.stdout.readline()
        if "on port" in line and "successfully" in line:
            return int(line.rstrip(".\n ").rpartition(" ")[2])
    raise AssertionError("chromedriver does not start")
