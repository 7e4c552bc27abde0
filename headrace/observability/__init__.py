"""What can be seen from outside: metrics, traces, log lines, health.

Lives here: the observer protocol (`observer.py`), its Prometheus, OpenTelemetry and structlog back ends (one per
file), and the port that shows metrics and health.

Must never: take part. An observer that raises is reported once and switched off; nothing it does may change a run,
and no payload, secret or id becomes a metric label. It imports `topics` and neither `handlers` nor `service`.

Read first: `observer.py`, then what it is told: `told_run.py`.
"""
