"""A headless Chromium that tests drive over its DevTools protocol: open a page, ask it, click, type, take a picture."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from flows.keeper import Keeper, start, stop

PATIENCE_SECONDS = 600  # what nothing takes, not even on a busy machine
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
ARGUMENTS += ["--remote-debugging-port=0", "--force-prefers-reduced-motion", "--disable-background-networking"]


class Page:
    """One tab. Expressions are JavaScript; what they give is JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0

    def ask(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol and its result."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(PATIENCE_SECONDS))
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                return message["result"]

    def open(self, url: str) -> None:
        """Go there and wait for the document, not for what its scripts do."""
        self.ask("Page.navigate", url=url)
        self.wait("document.readyState == 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression gives; a promise is waited for."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Ask until the answer is true, and return it."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(AssertionError):  # as while a page goes away
                if found := self.value(expression):
                    return found
            time.sleep(0.1)
        raise AssertionError(f"never true: {expression}\n{self.text()}")

    def text(self) -> str:
        """What a person can read on the page."""
        return str(self.value("document.body.innerText"))

    def click(self, expression: str) -> None:
        """Press the mouse in the middle of the element that an expression gives, once it is there."""
        self.wait(f"!!({expression})")
        self.value(f"({expression}).scrollIntoView({{block: 'center'}})")
        box = self.value(f"(b => [b.x + b.width / 2, b.y + b.height / 2])(({expression}).getBoundingClientRect())")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self.ask("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """A key by its name: Enter, Escape."""
        code = {"Enter": 13, "Escape": 27}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def resize(self, width: int, height: int = 1000) -> None:
        """Make the window so large, in pixels."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def picture(self, file: Path) -> None:
        """What the window shows, as a PNG."""
        file.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def chromium(folder: Path, width: int = 1280, height: int = 1000) -> Iterator[Page]:
    """A tab of a browser of its own, whose profile lies in `folder`; both end with the block."""
    assert CHROMIUM
    process = start(
        [CHROMIUM, *ARGUMENTS, f"--user-data-dir={folder / 'profile'}", "about:blank"], dict(os.environ), folder
    )
    try:
        with connect(_tab_address(folder / "profile" / "DevToolsActivePort", process), max_size=None) as connection:
            page = Page(connection)
            page.resize(width, height)
            yield page
    finally:
        stop(process)


def _tab_address(port_file: Path, process: Keeper) -> str:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            port = int(port_file.read_text().splitlines()[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=60) as answer:
                tabs = json.load(answer)
            return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")
        time.sleep(0.1)
    raise AssertionError(f"Chromium did not start (code {process.poll()})")
