"""What a soak measures: a block that was freed is not in use, whichever thread had it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.worker import COUNTED

ROOT = Path(__file__).parents[2]
KEPT = 200_000  # bytes
SCRIPT = f"""
import threading
from tests.chaos.worker import in_use

begin, freed, end = (threading.Barrier(9) for _ in range(3))
kept = []

def work():
    begin.wait()
    blocks = [bytes(size) for size in range(48, 960, 16) for _ in range(8)]
    del blocks
    freed.wait()
    end.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
before = in_use()
begin.wait()
freed.wait()
after = in_use()
kept.append(bytes({KEPT}))
print(after - before, in_use() - after)
end.wait()
"""


def test_what_threads_have_freed_is_not_in_use() -> None:
    """Else it would be 1.4 MB: what eight threads keep for themselves of blocks of all sizes."""
    environment = {**os.environ, **COUNTED, "PYTHONPATH": os.fspath(ROOT)}
    said = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    freed, kept = map(int, said.stdout.split())
    assert freed < KEPT / 2
    assert KEPT <= kept < 2 * KEPT
