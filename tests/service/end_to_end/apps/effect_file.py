"""What handlers did, written down where no kill can undo it: one line, one call. Read back by `effects.py` of the tests."""

import json
import os
import time

from headrace import current_attempt

_FILE = os.open(os.environ["E2E_EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def effect(phase: str, order: str = "") -> None:
    """The attempt that runs has come to this phase: `start`, or `end`."""
    attempt = current_attempt()
    line = {
        "key": attempt.idempotency_key,
        "task": attempt.task,
        "run": attempt.run_id,
        "number": attempt.number,
        "phase": phase,
        "pid": os.getpid(),
        "order": order,
        "at_ns": time.time_ns(),
    }
    os.write(_FILE, b"\n" + json.dumps(line).encode() + b"\n")  # whatever a kill has left before it
