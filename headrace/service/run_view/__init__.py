"""What the run log says about runs, for people and scripts: read from start to end through the same fold as the owner.

Bounded: partitions are streamed, ended runs are kept as summaries and only as many as were asked for. No user code
is needed. Never writes. Read `scan.py`, then
`summary.py` (all runs) and `run_history.py` (one of them).
"""
