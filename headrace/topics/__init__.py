"""What is on the wire, and the logs that carry it.

Lives here: CloudEvents (`event.py`), the records of the run log (`command.py`, `outcome.py`) and their codec, topic specs,
the `Log` protocol (`log.py`) with its implementations for Kafka and for one SQLite file, membership and dead letters, the
error tree (`errors.py`).

Must never: know what a record *means* (that is the fold's business), call user code, tell the observer anything, or import
another part of Headrace. aiokafka is imported in the `*_kafka.py` files only, sqlite3 in `log_embedded.py` only.

Read first: `event.py`, `command.py`, `outcome.py`, `log.py`.
"""
