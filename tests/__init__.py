"""The tests. Their layout mirrors the package; `tests/kafka_broker` starts real brokers, `tests/project` holds the repository's rules."""
