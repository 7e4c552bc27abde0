"""What a run costs: Headrace against a loop without durability, on one machine, beside one real Kafka.

`python -m benchmarks` runs it all and prints a table. Read `scenario.py` (what is measured), `bench.py` (one scenario,
start to end), `figures.py` (what the figures mean), then the programs it starts: `floor.py`, `app/app.py`,
`load_kafka.py`, `load_embedded.py`, `collect_kafka.py`, `collect_embedded.py`. Needs Linux: CPU and memory are read
from /proc. Method and findings: docs/performance.md.
"""
