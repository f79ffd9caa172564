"""A real browser for tests: Chromium without a window, spoken to over a pipe, so that no port is opened."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


def find() -> str | None:
    """The path of an installed Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab. `problems` holds the messages of the console and the uncaught exceptions of the page."""

    def __init__(self, path: str) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._loaded = 0
        self._buffer = b""
        self._ids = itertools.count(1)
        self._profile = tempfile.TemporaryDirectory(prefix="steelyard-browser-", ignore_cleanup_errors=True)
        read_us, write_browser = os.pipe()
        read_browser, write_us = os.pipe()

        def as_three_and_four() -> None:
            # The browser reads from descriptor 3 and writes to 4; step aside first, they may be taken.
            spare = [os.dup(read_browser), os.dup(write_browser)]
            while set(spare) & {3, 4}:
                spare = [os.dup(descriptor) for descriptor in spare]
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        self._process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            preexec_fn=as_three_and_four, pass_fds=(3, 4),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_browser)
        os.close(write_browser)
        self._read, self._write = read_us, write_us
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def open(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a file at a screen width in CSS px (a phone below 600) and wait until it is loaded."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if width < 600 else 1, mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.problems.clear()
        self.requests.clear()
        before = self._loaded
        self.send("Page.navigate", url=path.resolve().as_uri())
        while self._loaded == before:
            self._dispatch(self._receive())

    def run(self, script: str) -> Any:
        """The value of an expression; a promise is awaited."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, path: Path, whole: bool = True) -> None:
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def send(self, method: str, **parameters: Any) -> Any:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._dispatch(answer)

    def _dispatch(self, event: dict[str, Any]) -> None:
        name, details = event.get("method"), event.get("params", {})
        if name == "Page.loadEventFired":
            self._loaded += 1
        elif name == "Runtime.exceptionThrown":
            self.problems.append(str(details["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning", "assert"):
            self.problems.append(str(details["args"]))
        elif name == "Log.entryAdded":
            self.problems.append(str(details["entry"]))
        elif name == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])

    def _receive(self, limit: float = 240.0) -> dict[str, Any]:
        end = time.monotonic() + limit
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(self._read, 1 << 20) if ready else b""
            if not piece:
                raise TimeoutError(f"the browser said nothing for {limit:.0f} s, or ended: {self._process.poll()}")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        try:
            self.send("Browser.close")
            self._process.wait(timeout=10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()
