"""A real Kafka broker for tests and benchmarks: fetch, start, wait, kill, restart, stop.

`jars.py` gets the jars by Maven into `.cache/kafka/`, `broker.py` holds `KafkaBroker`, `cluster.py`
three of them, `keeper.py` is the small
process between us and the JVM that ends the broker when we end, however we end. `python -m tests.kafka_broker` runs one
by hand. Nothing here mocks anything: a machine without Java 17 or Maven raises `KafkaUnavailable`, and the fixtures
skip with its reason.
"""
