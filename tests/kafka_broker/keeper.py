"""Runs one command and ends it when the parent goes, however it goes: kill -9 of a test run leaves no broker behind.

Called by `broker.py` as a script, standard library only. Standard input is a pipe whose other end the parent holds: end
of file means that the parent is gone or wants a stop. The first line of standard output is the pid of the command.
Exit code: the command's, as a shell would report it.
"""

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 10  # a controlled shutdown of a broker takes 2 s


def main() -> int:
    command = subprocess.Popen(
        sys.argv[2:], stdin=subprocess.DEVNULL, stdout=_output(sys.argv[1]), stderr=subprocess.STDOUT
    )
    print(command.pid, flush=True)
    threading.Thread(target=_stop_at_end_of_input, args=(command,), daemon=True).start()
    code = command.wait()
    return code if code >= 0 else 128 - code


def _output(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _stop_at_end_of_input(command: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    command.terminate()
    command.send_signal(signal.SIGCONT)  # it may have been stopped by a test of pauses
    try:
        command.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        command.kill()


if __name__ == "__main__":
    sys.exit(main())
