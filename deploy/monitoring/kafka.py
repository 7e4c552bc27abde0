"""Kafka: lag, placement, the run log's speed, recovery."""

from typing import Final

from deploy.monitoring.dashboard import Dashboard, Row
from deploy.monitoring.metric import mean, per_second, quantile, select, total
from deploy.monitoring.panel import Lines, Query, Unit


def _quantiles(name: str, *quantiles: float) -> tuple[Query, ...]:
    return tuple(Query(quantile(q, name), f"p{q * 100:.0f}") for q in quantiles)


KAFKA: Final = Dashboard(
    uid="headrace-kafka",
    title="Headrace / Kafka",
    description="Lag by partition, who owns what, and how fast the run log is. The embedded log counts the same way.",
    rows=(
        Row(
            "Source topics",
            (
                Lines(
                    title="Lag in seconds, by partition",
                    description="Age of the first record that is not done.",
                    unit=Unit.SECONDS,
                    queries=(
                        Query(
                            f"max by (topic, partition) ({select('kafka_consumer_lag_seconds')})",
                            "{{topic}}/{{partition}}",
                        ),
                    ),
                ),
                Lines(
                    title="Lag in records, by partition",
                    description="Records between the router's position and the end.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(
                            f"max by (topic, partition) ({select('kafka_consumer_lag_records')})",
                            "{{topic}}/{{partition}}",
                        ),
                    ),
                ),
                Lines(
                    title="Backlog",
                    description="Bytes of starts that wait for room; past worker.max_queued_bytes a source is paused.",
                    unit=Unit.BYTES,
                    queries=(Query(total("source_backlog_bytes", by="topic"), "{{topic}}"),),
                ),
                Lines(
                    title="Event delay",
                    description="Source record time to its reading by the router.",
                    unit=Unit.SECONDS,
                    queries=_quantiles("event_delay_seconds", 0.5, 0.95, 0.99),
                ),
                Lines(
                    title="Event size",
                    description="Key, value and headers of a source record.",
                    unit=Unit.BYTES,
                    queries=(*_quantiles("event_size_bytes", 0.5, 0.99), Query(mean("event_size_bytes"), "mean")),
                ),
                Lines(
                    title="Matching",
                    description="Decoding and matching of one source record.",
                    unit=Unit.SECONDS,
                    queries=_quantiles("event_match_duration_seconds", 0.5, 0.99),
                ),
            ),
        ),
        Row(
            "The group",
            (
                Lines(
                    title="Partitions, by process",
                    description="Run-log partitions owned and source partitions read.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(total("kafka_partitions_assigned", by="instance, group"), "{{instance}} {{group}}"),
                    ),
                ),
                Lines(
                    title="Rebalances",
                    description="Changes of placement as the processes saw them. What stays placed never stops.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("kafka_rebalances_total", by="event"), "{{event}}"),),
                ),
                Lines(
                    title="Rebalance duration",
                    description="Old placement lost to new one known, mean.",
                    unit=Unit.SECONDS,
                    queries=(Query(mean("kafka_rebalance_duration_seconds", by="group"), "{{group}}"),),
                ),
                Lines(
                    title="Ownership changes",
                    description="Run-log partitions taken, released in good order, and lost.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("ownership_changes_total", by="reason"), "{{reason}}"),),
                ),
                Lines(
                    title="Recovery duration",
                    description="Taking one partition: decision to state folded.",
                    unit=Unit.SECONDS,
                    queries=(
                        *_quantiles("recovery_duration_seconds", 0.95),
                        Query(mean("recovery_duration_seconds"), "mean"),
                    ),
                ),
                Lines(
                    title="Records replayed",
                    description="Read again when partitions were taken.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("recovery_records_total"), "records"),),
                ),
            ),
        ),
        Row(
            "The run log",
            (
                Lines(
                    title="Append",
                    description="One batch, from the call to the broker's acknowledgement.",
                    unit=Unit.SECONDS,
                    queries=_quantiles("log_append_duration_seconds", 0.5, 0.95, 0.99),
                ),
                Lines(
                    title="Read-back",
                    description="One batch, from the call to its reading: only then a run goes on.",
                    unit=Unit.SECONDS,
                    queries=_quantiles("log_readback_duration_seconds", 0.5, 0.95, 0.99),
                ),
                Lines(
                    title="Records in a batch",
                    description="The group commit: grows with the load.",
                    unit=Unit.COUNT,
                    queries=(Query(mean("log_commit_records"), "mean"), *_quantiles("log_commit_records", 0.99)),
                ),
                Lines(
                    title="Bytes written, by kind",
                    description="As the owners read them.",
                    unit=Unit.BYTES_PER_SECOND,
                    stacked=True,
                    queries=(Query(per_second("log_written_bytes_total", by="kind"), "{{kind}}"),),
                ),
                Lines(
                    title="Log since the last checkpoint",
                    description="What a take-over would have to fold, by partition.",
                    unit=Unit.BYTES,
                    queries=(Query(f"max by (partition) ({select('log_bytes')})", "{{partition}}"),),
                ),
                Lines(
                    title="Checkpoint size",
                    description="The last one of each partition.",
                    unit=Unit.BYTES,
                    queries=(Query(f"max by (partition) ({select('checkpoint_bytes')})", "{{partition}}"),),
                ),
                Lines(
                    title="Checkpoints given up",
                    description="By a bug, or a start that cannot be read; `checkpoint.failed` says why. The log grows until one succeeds.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("checkpoints_failed_total", by="instance"), "{{instance}}"),),
                ),
                Lines(
                    title="Records skipped",
                    description="Records that the accept rule skipped: of a former owner, out of sequence, or again. Harmless.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(per_second("log_skipped_records_total", by="reason"), "{{reason}}"),),
                ),
                Lines(
                    title="Stopped partitions",
                    description="They stand still until somebody acts.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(
                            f"{total('partitions_stopped', by='topic, reason')} or vector(0)", "{{topic}} {{reason}}"
                        ),
                    ),
                ),
                Lines(
                    title="Produced, by result",
                    description="Records appended or published. Failed ones are tried again, refused ones are not.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(per_second("kafka_produced_records_total", by="topic, result"), "{{topic}} {{result}}"),
                    ),
                ),
                Lines(
                    title="Produce duration, p95",
                    description="One batch, from the call to its end.",
                    unit=Unit.SECONDS,
                    queries=(Query(quantile(0.95, "kafka_produce_duration_seconds", by="topic"), "{{topic}}"),),
                ),
            ),
        ),
    ),
)
