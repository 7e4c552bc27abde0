"""Which signals ask a process for what: to stop in good order, or to say more."""

from __future__ import annotations

import signal
from typing import Final

LEVEL_SIGNAL: Final = signal.SIGUSR1
"""Every log line, and once more: those of the settings."""


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGINT, SIGTERM, and SIGHUP: the terminal is gone. Not the last where whoever started us has it ignored, as `nohup` does."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return signal.SIGINT, signal.SIGTERM
    return signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def ignore_level_signal() -> None:
    """Of a process that does not write its log yet, or no more."""
    signal.signal(LEVEL_SIGNAL, signal.SIG_IGN)
