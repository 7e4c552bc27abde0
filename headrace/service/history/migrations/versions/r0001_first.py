"""The first schema: app, positions, runs, records, gaps."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("headrace_app", sa.Column("name", sa.Text, primary_key=True))
    op.create_table(
        "headrace_positions",
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("as_of", sa.BigInteger, nullable=False),
        sa.Column("checkpoint", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "headrace_runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("start_offset", sa.BigInteger, nullable=False),
        *(_text(name) for name in ("namespace", "workflow", "version", "status")),
        sa.Column("key", sa.Text),
        _text("trigger"),
        sa.Column("source", sa.Text),
        sa.Column("started_at_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger),
        sa.Column("duration_ms", sa.BigInteger),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("retries", sa.Integer, nullable=False),
        *(_text(name) for name in ("error", "message", "failed_step", "parked", "retry_of", "parent")),
        sa.Column("retriable", sa.Boolean, nullable=False),
        _text("retry"),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("joined", "undone", "undo_failed")),
        *(_text(name) for name in ("parked_step", "expected", "found", "trace_id", "producer_trace_id", "waiting")),
        _text("input"),
        sa.Column("result", sa.Text),
        _text("more"),
    )
    op.create_table(
        "headrace_records",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("log_offset", sa.BigInteger, primary_key=True),
        sa.Column("n", sa.Integer, primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        _text("kind"),
        _text("entry"),
    )
    op.create_table(
        "headrace_gaps",
        sa.Column("partition", sa.Integer, primary_key=True),
        sa.Column("first_offset", sa.BigInteger, primary_key=True),
        sa.Column("behind_offset", sa.BigInteger, nullable=False),
        _text("kind"),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    runs = "headrace_runs"
    newest = (sa.text("started_at_ms DESC"), "id")
    op.create_index("headrace_runs_newest", runs, [*newest])
    op.create_index("headrace_runs_by_workflow", runs, ["workflow", *newest])
    op.create_index("headrace_runs_by_status", runs, ["status", *newest])
    op.create_index("headrace_runs_by_key", runs, [sa.text("substr(key, 1, 200)"), *newest])
    child = sa.text("parent != ''")
    op.create_index("headrace_runs_by_parent", runs, ["parent"], postgresql_where=child, sqlite_where=child)
    op.create_index("headrace_runs_counts", runs, ["namespace", "workflow", "version", "status"])
    op.create_index("headrace_runs_ended", runs, ["partition", "ended_at_ms"])


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)
