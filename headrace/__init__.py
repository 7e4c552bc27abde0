"""Headrace: durable workflows on Kafka."""
