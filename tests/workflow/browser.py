"""A headless Chromium, driven over its DevTools pipe: opens a page, runs expressions in it, sees what it asks for."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# In CI nobody would notice that pages went unlooked at, so there the tests fail.
needs_chromium = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="needs Chromium")

# Chromium reads commands from file descriptor 3 and writes answers to 4; neither may be hit while it is being copied.
_START = """
import os, sys
for fd, high in zip(sys.argv[1:3], (100, 101)): os.dup2(int(fd), high)
for high, wanted in ((100, 3), (101, 4)): os.dup2(high, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A page of a running browser.

    Attributes:
        requests: Addresses that the page asked for, itself among them.
        messages: What it wrote to the console, uncaught errors too.
    """

    def __init__(self, to: int, back: int) -> None:
        self.requests: list[str] = []
        self.messages: list[str] = []
        self._to, self._back = to, back
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def open(self, page: Path, *, width: int = 1200, height: int = 900, query: str = "") -> None:
        """Open a file and wait until it is loaded; `query` ends its address."""
        self.requests.clear()
        self.messages.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=page.as_uri() + query)
        self._until(lambda message: message.get("method") == "Page.loadEventFired")
        self.run("new Promise(done => setTimeout(done, 300))")

    def run(self, expression: str) -> Any:
        """Run an expression in the page and return its value."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def call(self, method: str, **params: Any) -> Any:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda one: one.get("id") == message["id"])
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def _until(self, wanted: Any, timeout_s: float = 120) -> dict[str, Any]:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            while b"\0" in self._buffer:
                text, self._buffer = self._buffer.split(b"\0", 1)
                message = json.loads(text)
                self._note(message)
                if wanted(message):
                    return message
            if select.select([self._back], [], [], 1)[0]:
                self._buffer += os.read(self._back, 1 << 20)
        raise AssertionError("the browser did not answer in time")

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.messages.append(params["entry"]["text"])


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a browser without network in a profile of its own, and end it."""
    assert CHROMIUM is not None
    (their_in, to), (back, their_out) = os.pipe(), os.pipe()

    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
        "--disable-background-networking", "--hide-scrollbars", f"--user-data-dir={profile}",
    ]  # fmt: skip
    start = [sys.executable, "-c", _START, str(their_in), str(their_out), CHROMIUM, *options]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(start, pass_fds=(their_in, their_out), stdout=quiet, stderr=quiet)
    try:
        yield Browser(to, back)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()
        for fd in (their_in, to, back, their_out):
            os.close(fd)
