"""The running system: from a source record to a result record.

Lives here: definitions, the engine (`engine/`: state, fold, interpreter; pure), the shell around it (router, owner,
scheduler, outbox), settings, the command line, and `composition.py`, which puts a service together.

Must never: do I/O, read a clock or draw a random number inside `engine/`; act on an outcome before it was read back; open a
second path beside the data-flow sentence of docs/architecture.md.

Read first: `engine/state.py`, `engine/fold.py`, then `owner.py`.
"""
