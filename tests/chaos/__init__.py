"""Chaos on the real thing: a real Kafka, real processes, faults, and a judge that reads topics and public interfaces only.

`python -m tests.chaos` (`make chaos`) runs lines (`lines/`), each a kind of fault by its id (X1 ... X19), and prints one
table and one JSON. Parts: `apps/programs.py` is the user code, `program.py` what its runs must end as, `sink.py` the
process that hears of every attempt, `load.py` a producer that is not ours, `recorder.py` reads topics while they last,
`run_log.py` has an accept rule of its own, `judge.py` holds all of it against each other, `tcp_proxy.py` is the network,
`worker.py` a process that dies at a named fault point, `session.py` one app's life under faults.
"""
