"""Asks every worker of this machine how it is. For probes of containers, which know one port, where a pod has several.

`python -m headrace.service.cli.probe readyz 9464 3` asks the ports 9464 to 9466, and ends with 0 if the answer is yes, 1 if not:

- `readyz`: all of them are ready.
- `livez`: none of them hangs, and at least one is there. One that is not is its supervisor's, who starts it again.

It is run every few seconds, so it imports next to nothing.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Final

WITHIN_S: Final = 4.0
"""For all answers together: probes commonly give up after 5 s."""
_OK: Final = 200
_LINE_BYTES_MAX: Final = 1024
_USAGE: Final = "usage: python -m headrace.service.cli.probe readyz|livez PORT WORKERS"
_ABSENT: Final = "nobody listens"


def trouble(path: str, port: int, *, within_s: float) -> str:
    """What is wrong with the worker of this port; "": nothing."""
    deadline = time.monotonic() + within_s
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=max(0.001, within_s)) as connection:
            connection.sendall(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
            said = b""
            while b"\n" not in said and len(said) < _LINE_BYTES_MAX:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                received = connection.recv(_LINE_BYTES_MAX)
                if not received:
                    break
                said += received
    except ConnectionRefusedError:
        return _ABSENT
    except OSError as error:
        return f"no answer: {error}"
    status = said.split(b"\r\n", 1)[0].decode("latin-1")
    words = status.split(" ")
    if len(words) > 1 and words[0].startswith("HTTP/") and words[1] == str(_OK):
        return ""
    return status or "no answer"


def asked(path: str, port: int, workers: int) -> list[str]:
    """What speaks against it, one line for each worker; none: the answer is yes."""
    deadline = time.monotonic() + WITHIN_S
    found = {each: trouble(path, each, within_s=deadline - time.monotonic()) for each in range(port, port + workers)}
    if path == "livez" and any(found[each] != _ABSENT for each in found):
        found = {each: what for each, what in found.items() if what != _ABSENT}
    return [f"{path} of port {each}: {what}" for each, what in found.items() if what]


def main(arguments: list[str]) -> int:
    """The exit code; 2 for arguments that are none."""
    try:
        path, port, workers = arguments[0], int(arguments[1]), int(arguments[2])
        if path not in ("readyz", "livez") or workers < 1 or len(arguments) > 3:
            raise ValueError
    except (IndexError, ValueError):
        print(_USAGE, file=sys.stderr)
        return 2
    against = asked(path, port, workers)
    for line in against:
        print(line, file=sys.stderr)
    return 1 if against else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
