"""The effect sink: a process of its own that writes down what attempts tell, in the order in which they told it.

`python -m tests.chaos.sink FILE` serves on loopback and prints its port. A line in, its line in the file, then the
answer: how often this key had begun before. It outlives every worker; what it did not answer did not happen.
"""

import asyncio
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]


class Effect(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What an attempt did. `phase`: start, end, undo. `at_ns` by its own clock, `seen_ns` by the sink's."""

    key: str
    run: str
    task: str
    number: int
    phase: str
    pid: int
    job: str
    place: int
    branch: int
    at_ns: int
    seen_ns: int = 0


class Sink:
    """The process, and what it wrote so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.sink", str(path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,  # its end ends the sink, however we end
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._read = 0
        self._effects: list[Effect] = []
        self._decoder = msgspec.json.Decoder(Effect)

    def effects(self) -> list[Effect]:
        """All of them, in order of arrival. Reads on from where it was."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        self._effects += [self._decoder.decode(line) for line in whole.splitlines()]
        return self._effects

    def began(self) -> dict[str, list[Effect]]:
        """By idempotency key, the attempts that began."""
        found: dict[str, list[Effect]] = defaultdict(list)
        for effect in self.effects():
            if effect.phase in {"start", "undo"}:
                found[effect.key].append(effect)
        return found

    def interrupted(self, pid: int) -> int:
        """Attempts that began in a process and did not end there."""
        here = [effect for effect in self.effects() if effect.pid == pid]
        began = {(effect.key, effect.number) for effect in here if effect.phase == "start"}
        return len(began - {(effect.key, effect.number) for effect in here if effect.phase == "end"})

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(60)


async def serve(path: Path) -> None:
    begun: Counter[str] = Counter()
    with path.open("ab", buffering=0) as file:

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while line := await reader.readline():
                    if not line.endswith(b"\n"):
                        return  # its process died in mid-line
                    told = msgspec.json.decode(line)
                    before = begun[told["key"]]
                    begun[told["key"]] += told["phase"] == "start"
                    file.write(msgspec.json.encode({**told, "seen_ns": time.time_ns()}) + b"\n")
                    writer.write(b"%d\n" % before)
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(hear, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
