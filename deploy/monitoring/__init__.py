"""The one source of dashboards, recording rules and alert rules. `python -m deploy.monitoring` writes them.

`metric.py` says how a query is spelled, `panel.py` and `dashboard.py` how Grafana wants it; one file for each dashboard;
`alert.py` and `recording.py` for Prometheus. Metric names are those of headrace/observability/metrics.py: a misspelt one
fails while generating.
"""
