"""The tests. Their layout mirrors the package.

`tests/kafka_broker` starts real brokers, `tests/project` holds the rules of the repository itself.
"""
