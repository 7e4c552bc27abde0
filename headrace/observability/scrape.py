"""What a scrape of `/metrics` says: for those who look at workers from outside."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[str, list[tuple[dict[str, str], float]]]
"""Labels and values by the sample's name."""


def samples_of(text: str) -> Samples:
    """Read Prometheus' text format. Raises ValueError."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples
