"""The tables. `migrations/` makes them; a test holds the two together. Times are milliseconds since the epoch.

A database belongs to one app. Names begin with `headrace_`: others may live beside them.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, Table, Text, func

VERSIONS = "headrace_schema"
"""Alembic's own table: which migration was the last."""
NEWEST = "0001"
"""The last migration of this version of Headrace."""
KEY_CHARS = 200
"""Of a key, in its index: a key may be longer than what an index takes."""

metadata = MetaData()

app = Table(
    "headrace_app",
    metadata,
    Column("name", Text, primary_key=True),
)
"""One row: whose history this is."""

positions = Table(
    "headrace_positions",
    metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),  # everything before it is in the other tables
    Column("log", Text, nullable=False),  # which log of this name it is: `Gate.first`
    Column("as_of", BigInteger, nullable=False),  # of the newest checkpoint that was read; -1: none
    Column("checkpoint", BigInteger, nullable=False),  # offset of its first chunk: where reading begins after a restart
    Column("at_ms", BigInteger, nullable=False),  # append time of the last record that was read
)

runs = Table(
    "headrace_runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("start_offset", BigInteger, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("key", Text),
    Column("trigger", Text, nullable=False),
    Column("source", Text),
    Column("started_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    Column("duration_ms", BigInteger),
    Column("attempts", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("failed_step", Text, nullable=False),
    Column("parked", Text, nullable=False),
    Column("retry_of", Text, nullable=False),
    Column("parent", Text, nullable=False),
    Column("retriable", Boolean, nullable=False),
    Column("retry", Text, nullable=False),
    Column("joined", Integer, nullable=False),
    Column("undone", Integer, nullable=False),
    Column("undo_failed", Integer, nullable=False),
    Column("parked_step", Text, nullable=False),
    Column("expected", Text, nullable=False),
    Column("found", Text, nullable=False),
    Column("trace_id", Text, nullable=False),
    Column("producer_trace_id", Text, nullable=False),
    Column("waiting", Text, nullable=False),  # JSON
    Column("input", Text, nullable=False),  # JSON
    Column("result", Text),  # JSON
    Column("more", Text, nullable=False),  # JSON: what later versions say of a run
)

records = Table(
    "headrace_records",
    metadata,
    Column("run", Text, primary_key=True),
    Column("log_offset", BigInteger, primary_key=True),
    Column("n", Integer, primary_key=True),  # of a run's entries at one offset
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("entry", Text, nullable=False),  # JSON: a `HistoryEntry`
)

gaps = Table(
    "headrace_gaps",
    metadata,
    Column("partition", Integer, primary_key=True),
    Column("first_offset", BigInteger, primary_key=True),
    Column("behind_offset", BigInteger, nullable=False),  # the first one that was read again
    Column("kind", Text, nullable=False),  # trimmed, or truncated: the log ended before what was read
    Column("at_ms", BigInteger, nullable=False),
)

Index("headrace_runs_newest", runs.c.started_at_ms.desc(), runs.c.id)
Index("headrace_runs_by_workflow", runs.c.workflow, runs.c.started_at_ms.desc(), runs.c.id)
Index("headrace_runs_by_status", runs.c.status, runs.c.started_at_ms.desc(), runs.c.id)
Index("headrace_runs_by_key", func.substr(runs.c.key, 1, KEY_CHARS), runs.c.started_at_ms.desc(), runs.c.id)
Index("headrace_runs_by_parent", runs.c.parent, postgresql_where=runs.c.parent != "", sqlite_where=runs.c.parent != "")
Index("headrace_runs_counts", runs.c.namespace, runs.c.workflow, runs.c.version, runs.c.status)
Index("headrace_runs_ended", runs.c.partition, runs.c.ended_at_ms)
