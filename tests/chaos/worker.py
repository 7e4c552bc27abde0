"""`python -m tests.chaos.worker ARGUMENTS...`: the `headrace` command, with a hand on a fault point.

`CHAOS_POINT` names the point, `CHAOS_HIT` how often it is passed first; the process then leaves a file in `CHAOS_FIRED`
and dies by SIGKILL, as if the power had gone. Without the variable it is the plain command.
"""

import os
import signal
import sys
from pathlib import Path

from headrace.__main__ import main
from headrace.service.fault_point import FaultPoint, arm


def dies_at(wanted: FaultPoint, hit: int, fired: Path) -> None:
    """Arm the hook."""
    left = hit

    def hook(point: FaultPoint) -> None:
        nonlocal left
        if point is wanted:
            left -= 1
            if not left:
                (fired / f"fired.{os.getpid()}").write_text(point)
                os.kill(os.getpid(), signal.SIGKILL)

    arm(hook)


if __name__ == "__main__":
    if "CHAOS_POINT" in os.environ:
        dies_at(
            FaultPoint(os.environ["CHAOS_POINT"]),
            int(os.environ.get("CHAOS_HIT", "1")),
            Path(os.environ["CHAOS_FIRED"]),
        )
    sys.exit(main())
