"""Chromium without a window, driven through the DevTools protocol: as much of it as the console's tests need."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from tests.requirement import missing

BOUND_S: Final = 60  # against hanging, not a measurement
_LOOK_S: Final = 0.05  # between two looks at a page

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """Where it is; skips (fails with CI=true) where it is not."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        missing("No Chromium is installed: apt install chromium")
    return found


class Page:
    """One tab. What its scripts throw, and what the browser refuses them, is in `complaints`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Until the browser hangs up."""
        async for message in self._socket:
            said = json.loads(message.data)
            answer = self._answers.pop(said.get("id", 0), None)
            if answer is not None:
                if not answer.done():
                    answer.set_result(said)
            elif said.get("method") == "Runtime.exceptionThrown":
                details = said["params"]["exceptionDetails"]
                self.complaints.append(details.get("exception", {}).get("description") or details["text"])
            elif said.get("method") == "Log.entryAdded":
                entry = said["params"]["entry"]
                if entry["level"] == "error":
                    self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
            elif said.get("method") == "Page.javascriptDialogOpening":
                self.complaints.append(f"a dialog of a script: {said['params']['message']}")

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async with asyncio.timeout(BOUND_S):
            said = await answer
        assert "error" not in said, said
        return said["result"]

    async def open(self, address: str) -> None:
        await self.send("Page.navigate", url=address)

    async def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        said = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Its value, once it is one; a page that is on its way to another has none."""
        try:
            async with asyncio.timeout(BOUND_S):
                while True:
                    said = await self.send("Runtime.evaluate", expression=expression, returnByValue=True)
                    value = said["result"].get("value") if "exceptionDetails" not in said else None
                    if value:
                        return value
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            text = await self.ask("document.body.innerText")
            raise AssertionError(f"never: {expression}\n{text}\n{self.complaints}") from None

    async def text(self) -> str:
        """What a reader sees."""
        return str(await self.ask("document.querySelector('main').innerText"))

    async def shows(self, *words: str) -> str:
        """The text, once all these words are in it."""
        for each in words:
            await self.until(f"document.querySelector('main')?.innerText.includes({json.dumps(each)})")
        return await self.text()

    async def click(self, selector: str, words: str = "") -> None:
        """The first thing that fits and has these words, once it is there, and nothing lies on it. Looked for and clicked in one
        go: a page that is drawn anew in between would take the click elsewhere."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})].find(e => e.innerText.includes({json.dumps(words)}))"
        await self.until(
            f"(() => {{ const e = {found}; if (!e) return false; e.scrollIntoView({{block: 'center'}});"
            " const r = e.getClientRects()[0]; if (!r) return false;"
            " const top = document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2);"
            " if (!e.contains(top) || e.disabled) return false; e.click(); return true })()"
        )

    async def write(self, selector: str, text: str) -> None:
        """Into a field, in place of what is there."""
        await self.until(f"!!document.querySelector({json.dumps(selector)})")
        await self.ask(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.focus(); e.select() }})()"
        )
        await self.send("Input.insertText", text=text)

    async def press(self, key: str, code: int) -> None:
        """A key that is no letter: `Tab` 9, `Enter` 13, `Escape` 27."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    async def back(self) -> None:
        await self.ask("history.back()")

    async def is_as_wide_as(self, width: int) -> None:
        """A screen of this width."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )


class Browser:
    """A browser of its own; leaving the `with` kills it. Tabs come and go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""

    def __enter__(self) -> Self:
        options = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={self._folder}", "--no-first-run"]
        options += ["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-proxy-server"]
        options += ["--disable-extensions", "--window-size=1280,900", "--lang=en-US"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # its sandbox refuses root
        command = [chromium(), *options, "about:blank"]
        with (self._folder / "said").open("wb") as said:
            self._process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        try:
            self._address = f"http://127.0.0.1:{self._port(self._process)}"
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Page]:
        """A new tab, in front of all others."""
        async with aiohttp.ClientSession(self._address, raise_for_status=True) as session:
            async with session.put("/json/new?about:blank") as answer:
                tab = await answer.json()
            async with session.ws_connect(tab["webSocketDebuggerUrl"]) as socket:
                page = Page(socket)
                async with asyncio.TaskGroup() as group:
                    listening = group.create_task(page.listen())
                    for domain in ("Page", "Runtime", "Log", "Network"):
                        await page.send(f"{domain}.enable")
                    await page.send("Page.bringToFront")
                    yield page
                    listening.cancel()
            async with session.get(f"/json/close/{tab['id']}"):
                pass

    def _port(self, process: "subprocess.Popen[bytes]") -> int:
        file = self._folder / "DevToolsActivePort"
        until = time.monotonic() + BOUND_S
        while not file.exists() or "\n" not in file.read_text():
            said = (self._folder / "said").read_text(errors="replace")
            assert process.poll() is None, said
            assert time.monotonic() < until, said
            time.sleep(_LOOK_S)  # a look at another process is a poll
        return int(file.read_text().splitlines()[0])

    def _kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(BOUND_S)
