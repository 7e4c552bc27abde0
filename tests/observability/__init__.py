"""Metrics, traces, lines, health: seen as Prometheus, a collector and people see them."""
