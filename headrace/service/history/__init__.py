"""The history: a SQL read model of runs, for the API and the console. Fed from the run log, never the truth; what was trimmed before it was read is a gap.

    run log ──► Feeder (one a partition): fold as data ──► Rows ──► HistoryWriter: one transaction with the position ──► SqlQueries

Nothing of the service waits for it, but the trim of the run log, up to `history.trim_wait_bytes`. SQL lives here and nowhere else. Read `tables.py` and
`rows.py` first, then `feeder.py`; `history.py` puts them together.
`link.py` and `url.py` are what the rest of the service sees of it: they import no SQL library.
"""
