"""Headless Chromium over its DevTools pipe, with a network of its own that reaches nobody: what a person would see of a page.

The protocol is https://chromedevtools.github.io/devtools-protocol/; over a pipe its messages are JSON, each ended by a NUL, and
Chromium reads file descriptor 3 and writes 4. Debian's `chromium` is all it takes.
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.sshd import boards_are_asked_for

PROGRAM = shutil.which("chromium")
DEADLINE_S = 180.0  # a page takes a second; a machine full of other tests takes its time
FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root, where there is no other way; the pages are ours
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--force-color-profile=srgb",
)

# Where boards are asked for, as in `.ci/run`, it must be here: then nothing is skipped.
needs_browser = pytest.mark.skipif(
    (PROGRAM is None or os.geteuid() != 0) and not boards_are_asked_for(),
    reason="needs Debian's chromium, and root to cut off its network",
)


class Page:
    """One tab. `errors` holds whatever its console or the browser's log complained of, `requests` every address it asked for."""

    def __init__(self, inward: int, outward: int) -> None:
        self._inward, self._outward = inward, outward
        self._buffer = b""
        self._count = 0
        self._session = ""
        self._events: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self.requests: list[str] = []

    def attach(self) -> None:
        """Take the tab that the browser opened, and listen to all it says."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, path: Path) -> None:
        """Load a file and wait until it is done."""
        self._events.clear()
        self.call("Page.navigate", url=path.as_uri())
        end = time.monotonic() + DEADLINE_S
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._take(end)

    def resize(self, width: int, height: int = 900, scale: float = 1, *, mobile: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def prefer(self, scheme: str) -> None:
        """`light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, as JSON. Fails the test when it throws."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def hover(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def pdf(self, path: Path) -> None:
        """As it is printed, on A4."""
        printed = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(printed["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one command. Fails the test when the browser refuses it or does not answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._inward, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + DEADLINE_S
        while True:
            answer = self._take(end)
            if answer is not None and answer["id"] == self._count:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])

    def _take(self, end: float) -> dict[str, Any] | None:
        """The next message: an answer, or None for an event, which is noted."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._outward], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self._outward, 1 << 16)
            assert piece, "the browser has gone"
            self._buffer += piece
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        if "id" in message:
            return message
        self._note(message)
        return None

    def _note(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        method, params = event["method"], event["params"]
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.errors.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded":
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


@contextmanager
def browser() -> Iterator[Page]:
    """A tab in a browser of its own, whose network has not even a loopback. Needs root."""
    assert PROGRAM is not None, "apt-get install chromium"
    with tempfile.TemporaryDirectory() as home:
        inward, outward = os.pipe(), os.pipe()

        def place() -> None:
            """The pipe's ends where Chromium looks for them; first out of the way of each other."""
            reading, writing = os.dup2(inward[0], 63), os.dup2(outward[1], 64)
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        argv = ["unshare", "--net", PROGRAM, *FLAGS, f"--user-data-dir={home}/profile", "about:blank"]
        process = subprocess.Popen(
            argv,
            preexec_fn=place,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": home, "TMPDIR": home},
            start_new_session=True,
        )
        os.close(inward[0])
        os.close(outward[1])
        try:
            page = Page(inward[1], outward[0])
            page.attach()
            yield page
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(DEADLINE_S)
            os.close(inward[1])
            os.close(outward[0])
