"""The lines by their ids of reliability.md; each file is one kind of fault."""

from tests.chaos.line import Line
from tests.chaos.lines import x01_fault_points, x02_random_kills, x03_stop

LINES = (
    Line("X1", "kill -9 at every named fault point", x01_fault_points.run_line),
    Line("X2", "kill -9 at random under load", x02_random_kills.run_line),
    Line("X3", "SIGTERM under load", x03_stop.run_line),
)
