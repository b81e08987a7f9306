"""A headless Chromium over its own debugging pipe (chromedevtools.github.io/devtools-protocol): no driver, no port, no library."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 30


def installed() -> str | None:
    """The path of a Chromium, if there is one (Debian: apt-get install chromium-headless-shell)."""
    return next((found for found in map(shutil.which, NAMES) if found), None)


class Browser:
    """One browser with one page. `requests` and `complaints` are what the page asked for and what the console said, since `open`."""

    def __init__(self, path: str, folder: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()
        argv = [path, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars",
                "--no-first-run", f"--user-data-dir={folder}", "about:blank"]  # fmt: skip
        # it reads commands from descriptor 3 and writes what happens to 4
        line = f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}'
        self.process = subprocess.Popen(
            ["bash", "-c", line, "browser", *argv], pass_fds=(ours[0], theirs[1]), stderr=subprocess.DEVNULL
        )
        os.close(ours[0])
        os.close(theirs[1])
        self.to, self.back = ours[1], theirs[0]
        self.unread = b""
        self.number = 0
        self.session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.happened: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Audits"):
            self.ask(f"{domain}.enable")

    def close(self) -> None:
        """End it."""
        self.session = None
        with contextlib.suppress(AssertionError, OSError):
            self.ask("Browser.close")
        self.process.kill()
        self.process.wait(10)
        os.close(self.to)
        os.close(self.back)

    def message(self, until: float) -> dict[str, Any]:
        """The next message, each of which ends with a zero byte."""
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.back], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser did not answer in time"
            chunk = os.read(self.back, 1 << 16)
            assert chunk, "the browser ended"
            self.unread += chunk
        line, _, self.unread = self.unread.partition(b"\0")
        return json.loads(line)

    def ask(self, method: str, **params: object) -> dict[str, Any]:
        """One command and its answer; what happens meanwhile is noted."""
        self.number += 1
        told = {"id": self.number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.to, json.dumps(told).encode() + b"\0")
        until = time.monotonic() + TIMEOUT_S
        while True:
            got = self.message(until)
            if got.get("id") == self.number:
                assert "error" not in got, f"{method}: {got['error']}"
                return got["result"]
            self.note(got)

    def note(self, got: dict[str, Any]) -> None:
        """Keep what matters of an event."""
        name, params = got.get("method", ""), got.get("params", {})
        self.happened.append(name)
        if name == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif name == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
        elif name in {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Audits.issueAdded"}:
            self.complaints.append(json.dumps(params))

    def open(self, url: str, *, scheme: str, width: int = 1000, height: int = 800) -> None:
        """Load a page, as somebody whose desktop is light or dark would."""
        self.requests, self.complaints, self.happened = [], [], []
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=url)
        until = time.monotonic() + TIMEOUT_S
        while "Page.loadEventFired" not in self.happened:
            self.note(self.message(until))
        time.sleep(0.2)
        self.evaluate("1")  # whatever was still under way has been said by now

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, as the debugger sees it: the page itself may run nothing."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.ask("Page.printToPDF", preferCSSPageSize=True)["data"])
