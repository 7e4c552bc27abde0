"""The lines by their ids of reliability.md; each file is one kind of fault."""

from tests.chaos.line import Line
from tests.chaos.lines import (
    soak,
    x01_fault_points,
    x02_random_kills,
    x03_stop,
    x04_zombie,
    x05_blocked_loop,
    x06_broker,
    x07_broker_errors,
    x08_network,
    x09_late_produce,
    x10_storm,
    x11_disk_full,
    x12_clock,
    x13_hanging_handler,
    x19_pairs,
)

LINES = (
    Line("X1", "kill -9 at every named fault point", x01_fault_points.run_line),
    Line("X2", "kill -9 at random under load", x02_random_kills.run_line),
    Line("X3", "SIGTERM under load", x03_stop.run_line),
    Line("X4", "zombies: stopped past the session, then continued", x04_zombie.run_line),
    Line("X5", "a handler blocks the event loop for two sessions", x05_blocked_loop.run_line),
    Line("X6", "the broker: restart, kill -9, one node of three after the other", x06_broker.run_line),
    Line("X7", "brokers answer with errors", x07_broker_errors.run_line),
    Line("X8", "the network: blackhole, lost answers, reset, slow", x08_network.run_line),
    Line("X9", "a produce request arrives after its owner was replaced", x09_late_produce.run_line),
    Line("X10", "a worker joins or leaves every 2 s", x10_storm.run_line, alone=True),
    Line("X11", "no room for the embedded log", x11_disk_full.run_line),
    Line("X12", "clocks jump", x12_clock.run_line),
    Line("X13", "one type of handler always hangs", x13_hanging_handler.run_line, alone=True),
    Line("X19", "two faults at once", x19_pairs.run_line),
    Line("L7", "a soak: memory stays flat, the log is trimmed", soak.run_line, alone=True),
)
