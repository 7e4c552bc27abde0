"""The engine: what the run log means. Pure: no clock, no chance, no I/O, no logging.

`gate` and `dedupe` say which records count, `fold` turns them into `state` and `instruction`s, `interpreter` drives a workflow's coroutine through the `step`s
that `run` makes. Never here: asyncio, threads, policies of calls. Read `state.py`, then `fold.py`, then `run.py` and `interpreter.py`.
"""
