"""Headless Chromium by its DevTools protocol: open a page at a width and in a theme, and ask it."""

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient  # pyright: ignore[reportMissingImports]
from tornado.websocket import websocket_connect  # pyright: ignore[reportMissingImports]

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """The path of Chromium; None: there is none on this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def launch() -> Iterator[str]:
    """Start Chromium; the value is the address of its protocol."""
    folder = Path(tempfile.mkdtemp())
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    flags += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen([find() or "chromium", *flags], stderr=subprocess.DEVNULL)
    try:
        yield wait_for_port(folder / "DevToolsActivePort")
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_port(file: Path) -> str:
    for _ in range(600):
        if file.exists() and "\n" in file.read_text("utf-8"):
            return f"http://127.0.0.1:{file.read_text('utf-8').splitlines()[0]}"
        time.sleep(0.1)
    raise TimeoutError("Chromium did not open its port in a minute")


class Tab:
    """A tab: `call` sends one command of the protocol and returns its result."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.number = socket, 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        await self.socket.write_message(json.dumps(message))
        while True:
            reply = json.loads(await self.socket.read_message())
            if reply.get("id") == self.number:
                return reply.get("result", {})

    async def open(self, address: str, width: int, theme: str) -> None:
        """Load a page at a width, in the theme "light" or "dark", and wait for its fonts."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": theme}
        await self.call("Emulation.setEmulatedMedia", media="screen", features=[scheme])
        await self.call("Page.navigate", url=address)
        ready = "document.readyState === 'complete' && document.fonts.status === 'loaded'"
        for _ in range(300):
            if await self.ask(f"location.href.startsWith({address!r}) && {ready}"):
                return
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{address} did not load")

    async def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        reply = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return reply.get("result", {}).get("value")

    async def picture(self, file: Path) -> None:
        """A picture of the whole page."""
        reply = await self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        file.write_bytes(base64.b64decode(reply["data"]))


async def new_tab(port: str) -> Tab:
    reply = await AsyncHTTPClient().fetch(f"{port}/json/new", method="PUT", body="")
    address = json.loads(reply.body)["webSocketDebuggerUrl"]
    return Tab(await websocket_connect(address, max_message_size=2**28))
