"""A process that the benchmark starts, talks to by lines, and ends by its pid."""

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

LINE_TIMEOUT_S = 60.0  # imports on a loaded machine take seconds
STOP_TIMEOUT_S = 45.0  # longer than Headrace's own `worker.shutdown_grace`
LINE_BYTES_MAX = 1 << 20


class ProgramFailed(Exception):
    """It ended too early or did not answer. The message ends with the tail of its log."""


class Program:
    """`async with` runs it. Lines of a `talking` program come by `line`; all else goes to `log`.

    `exit_code` is there after `stop`.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        talking: bool = True,
    ) -> None:
        self.exit_code: int | None = None
        self._command = command
        self._log = log
        self._folder = folder
        self._environment = {**os.environ, **(environment or {})}
        self._talking = talking
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        return self._running.pid

    async def line(self, timeout_s: float | None = LINE_TIMEOUT_S) -> str:
        """The next line it prints. Raises `ProgramFailed` at its end, or when it takes too long."""
        stdout = self._running.stdout
        assert stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                text = (await stdout.readline()).decode().strip()
        except TimeoutError:
            raise self.failed(f"said nothing for {timeout_s:g} s") from None
        if not text:
            raise self.failed("ended too early")
        return text

    async def expect(self, word: str) -> None:
        """Wait for exactly this line."""
        text = await self.line(None if word == "done" else LINE_TIMEOUT_S)
        if text != word:
            raise self.failed(f"said {text!r}, not {word!r}")

    async def tell(self, text: str) -> None:
        stdin = self._running.stdin
        assert stdin is not None
        stdin.write(f"{text}\n".encode())
        await stdin.drain()

    async def ended(self) -> None:
        """Wait until it ends by itself."""
        await self._running.wait()

    async def stop(self) -> str:
        """SIGTERM, then SIGKILL if that does not help. What it still printed; `exit_code` says how it ended."""
        process = self._running
        if process.returncode is None:
            process.terminate()
        rest = b""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                if process.stdout is not None:
                    rest = await process.stdout.read()
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        self.exit_code = process.returncode
        return rest.decode().strip()

    def failed(self, what: str) -> ProgramFailed:
        """An error that shows the end of its log."""
        text = self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""
        return ProgramFailed(f"{' '.join(self._command[:6])} ... {what}. Its log ends with:\n{text}")

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=PIPE if self._talking else DEVNULL,
                stdout=PIPE if self._talking else log,
                stderr=log if self._talking else STDOUT,
                cwd=self._folder,
                env=self._environment,
                limit=LINE_BYTES_MAX,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.stop()

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError("not started")
        return self._process
