"""All settings, typed, frozen and valid. `settings_source.py` reads them; everything else only gets `Settings`.

A user's key is the field's alias where there is one (`worker.shutdown_grace`), while the attribute says its unit
(`shutdown_grace_ms`). Tests and other code may build one directly, as in
`Settings.model_validate({"log": {"path": "x.sqlite"}})`; `Settings()` is all defaults on the embedded log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    WrapValidator,
    create_model,
    field_validator,
    model_validator,
)

from headrace.service import settings_buckets
from headrace.service.history.url import check as check_history_url
from headrace.service.settings_quantity import byte_size, duration_ms

KIB, MIB = 1 << 10, 1 << 20


class Backend(StrEnum):
    """Which `Log` holds everything."""

    EMBEDDED = "embedded"
    KAFKA = "kafka"


def _whole_number(value: object) -> object:
    """No booleans and no fractions, which a lax parser would take for numbers."""
    if isinstance(value, bool | float) or (isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value.strip())):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _yes_or_no(value: object) -> object:
    match value:
        case bool():
            return value
        case "true" | "false":
            return value == "true"
        case _:
            raise ValueError(f"{value!r} is neither true nor false")


def _or_none(value: object) -> object:
    return None if value in ("none", "never") else duration_ms(value)


def _processes(value: object, validate: Callable[[object], int | str]) -> int | str:
    """One message instead of one for each half of the union."""
    try:
        return validate(value)
    except ValueError:
        raise ValueError("it should be a whole number from 1 on, or `auto`") from None


def _as_list(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _a_file(path: Path) -> Path:
    if not path.name or os.path.isdir(path):  # noqa: PTH112 - a folder that may not be looked into is none
        raise ValueError("it should name a file, not a folder")
    return path


Whole = Annotated[int, BeforeValidator(_whole_number)]
Count = Annotated[Whole, Field(ge=1)]
Port = Annotated[Whole, Field(ge=0, le=65535)]  # 0: any free one
Switch = Annotated[bool, BeforeValidator(_yes_or_no)]
DurationMs = Annotated[int, BeforeValidator(duration_ms), Field(ge=0)]
DurationMsOrNone = Annotated[int | None, BeforeValidator(_or_none)]
Bytes = Annotated[int, BeforeValidator(byte_size), Field(ge=1)]


class Section(BaseModel):
    """A table of settings. Unknown keys are refused; values do not change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class AppSettings(Section):
    """Who we are among the topics: `name` is the prefix of all internal topics and groups."""

    name: str = Field(
        default="headrace", pattern=r"^[A-Za-z0-9._-]{1,150}$", description="Prefix of all internal topics and groups."
    )
    environment: str = Field(default="", description="A word such as `production`. Not used yet.")


class LogSettings(Section):
    """Where the run log and all topics live."""

    backend: Backend = Field(
        default=Backend.EMBEDDED,
        description="`embedded` (one SQLite file) or `kafka`. Unset: `dev` embedded, `serve` kafka, "
        "others by `kafka.bootstrap_servers`.",
    )
    path: Annotated[Path, AfterValidator(_a_file)] = Field(
        description="The embedded log's file. Unset: `.headrace/<app.name>.sqlite`."
    )
    partitions: Count = Field(description="Partitions of the run log, fixed when it is made. Unset: 64, or 8 embedded.")
    replication: Count | None = Field(
        default=None, description="Replicas of new topics. Unset: 3, or as many as there are brokers."
    )
    max_record_bytes: Bytes = Field(default=900 * KIB, description="Largest record Headrace writes.")
    checkpoint_bytes: Bytes = Field(
        default=1024 * KIB,
        description="Log of a partition behind which a checkpoint is due; all logs of a process are kept below twice as much, one early checkpoint a second.",
    )
    group_commit_bytes: Bytes = Field(default=512 * KIB, description="Largest batch of outcomes in one append.")


class KafkaSettings(Section):
    """How to reach Kafka."""

    bootstrap_servers: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        default=(), description="`host:port`, several with commas."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="Transport."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI"] | None = Field(
        default=None, description="How to log in."
    )
    sasl_username: str | None = Field(default=None, description="For PLAIN and SCRAM.")
    sasl_password: SecretStr | None = Field(default=None, description="For PLAIN and SCRAM. A secret.")
    sasl_kerberos_service_name: str = Field(default="kafka", description="For GSSAPI.")
    sasl_kerberos_domain_name: str | None = Field(default=None, description="For GSSAPI.")
    ssl_ca_file: Path | None = Field(default=None, description="Who we trust (PEM). Unset: the system's authorities.")
    ssl_certificate_file: Path | None = Field(default=None, description="Our own certificate (PEM).")
    ssl_key_file: Path | None = Field(default=None, description="Our own key (PEM).")
    ssl_key_password: SecretStr | None = Field(default=None, description="Opens `ssl_key_file`. A secret.")
    ssl_check_hostname: Switch = Field(default=True, description="The broker's certificate must carry its name.")
    client_id: str | None = Field(default=None, description="Name in the broker's logs and quotas. Unset: `app.name`.")
    client_rack: str | None = Field(default=None, description="Our rack: read from the nearest replica.")
    extra: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="More client settings by their dotted librdkafka names."
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _host_and_port(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        for server in servers:
            host, colon, port = server.rpartition(":")
            if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ValueError(f"{server!r} is not host:port")
        return servers

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.security_protocol.startswith("SASL") and self.sasl_mechanism is None:
            raise ValueError(f"security_protocol {self.security_protocol} needs kafka.sasl_mechanism")
        if self.ssl_key_file is not None and self.ssl_certificate_file is None:
            raise ValueError("ssl_key_file needs kafka.ssl_certificate_file")
        return self


class WorkerSettings(Section):
    """How much one instance does at once, and how it stops."""

    processes: Annotated[Count | Literal["auto"], WrapValidator(_processes)] = Field(
        default=1, description="Worker processes of `serve`; `auto`: one for each core."
    )
    max_active_runs: Count = Field(
        default=4_000, description="Runs with work at once, a process; past it the router pauses."
    )
    max_queued_bytes: Bytes = Field(
        default=64 * MIB,
        description="Starts that wait, in memory, a process; past it routers pause and starts stay in the log.",
    )
    idle_after_ms: DurationMs = Field(
        default=1_000,
        alias="idle_after",
        description="A run that only waits is kept as bytes from then on; `0s`: at once.",
    )
    handoff_grace_ms: DurationMs = Field(
        default=10_000, alias="handoff_grace", description="How long released attempts may go on."
    )
    shutdown_grace_ms: DurationMs = Field(
        default=30_000, alias="shutdown_grace", description="The whole stop; larger than `handoff_grace`."
    )
    thread_pool: Count = Field(default=32, description="Threads for synchronous handlers, a process.")

    @model_validator(mode="after")
    def _stop_is_longer(self) -> Self:
        if self.shutdown_grace_ms <= self.handoff_grace_ms:
            raise ValueError("shutdown_grace is the whole stop and must be longer than worker.handoff_grace")
        return self


class RetryDefaults(Section):
    """The retry policy of handlers that name none. The words are those of `Retry`."""

    attempts: Count = Field(default=4, description="Attempts, the first included.")
    backoff: Literal["constant", "linear", "exponential"] = Field(default="exponential", description="How waits grow.")
    delay_ms: DurationMs = Field(default=200, alias="delay", description="Ceiling of the first wait (full jitter).")
    cap_ms: DurationMs = Field(default=30_000, alias="cap", description="Ceiling of all waits.")
    deadline_ms: DurationMsOrNone = Field(
        default=None, alias="deadline", ge=1, description="Spans all attempts and waits; `none`: no limit."
    )

    @model_validator(mode="after")
    def _waits_are_possible(self) -> Self:
        if self.delay_ms > self.cap_ms:
            raise ValueError("delay would never be waited: it must not be longer than defaults.retry.cap")
        return self


class DefaultsSettings(Section):
    """What handlers and workflows get that say nothing."""

    timeout_ms: DurationMs = Field(default=30_000, alias="timeout", ge=1, description="Of one attempt.")
    retry: RetryDefaults = Field(default_factory=RetryDefaults, description="Of handlers without `retry`.")
    run_timeout_ms: DurationMsOrNone = Field(
        default=None, alias="run_timeout", ge=1, description="Of runs without `timeout`; `none`: no limit."
    )


class ApiSettings(Section):
    """The HTTP API and console."""

    enabled: Switch = Field(default=True, description="Whether there is one.")
    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: Port = Field(default=8080, description="Port to listen on, + worker index; 0: any free one.")
    auth: Literal["none", "token"] = Field(
        default="none", description="`token` asks for `api.token`; `none` is for this machine only."
    )
    token: SecretStr | None = Field(default=None, description="What clients send as `Authorization: Bearer`. A secret.")
    allow_anonymous: Switch = Field(
        default=False, description="Listen for others, too, without a token: whoever reaches it may do everything."
    )
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        default=(),
        description="Names that requests may give as `Host`, with commas. Unset: of this machine, or any with a token.",
    )
    base_path: str = Field(default="/", pattern=r"^/[A-Za-z0-9._~/-]*$", description="Where a proxy puts us.")
    max_body_bytes: Bytes = Field(default=4 * MIB, description="Largest body of a request.")
    max_requests: Count = Field(
        default=64, description="Requests that are worked on at once; as many again that need no log."
    )
    max_streams: Count = Field(default=64, description="Live update streams that are open at once.")
    request_timeout_ms: DurationMs = Field(
        default=30_000,
        alias="request_timeout",
        ge=1,
        description="Until an answer; waits that were asked for do not count.",
    )
    trace_url: str = Field(
        default="", description="Where the console finds a trace: an address with `{trace_id}` in it."
    )


if TYPE_CHECKING:

    class BucketSettings(Section):
        """A field for each histogram: its bounds, or None for those of the metric table."""
else:
    BucketSettings = create_model("BucketSettings", __base__=Section, **settings_buckets.fields())


class TelemetrySettings(Section):
    """Metrics, health, logs; traces are set up by the standard `OTEL_*` variables."""

    metrics_host: str = Field(default="127.0.0.1", min_length=1, description="Address of metrics and health.")
    metrics_port: Port = Field(default=9464, description="Port of metrics and health, + worker index; 0: any free one.")
    discovery_file: Path | None = Field(
        default=None,
        description="Where `serve` with several workers lists their metrics, as Prometheus' `file_sd` reads it.",
    )
    series_budget: Count = Field(default=5_000, description="Most time series; past it the `task` label is dropped.")
    parent_from_kafka: Switch = Field(
        default=False, description="Go on in the producer's trace instead of linking to it."
    )
    delay_limit_ms: DurationMs = Field(
        default=300_000,
        alias="delay_limit",
        description="The longest wait of a start; forecasts tell when it is passed.",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="`auto`: text on a terminal, else JSON lines."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is written; `dev`: warning unless it is set."
    )
    buckets: BucketSettings = Field(default_factory=BucketSettings, description="Bounds of histograms.")

    @property
    def bounds(self) -> dict[str, tuple[float, ...]]:
        """The histograms whose bounds are set, by family without prefix."""
        return {name: bounds for name, bounds in self.buckets.model_dump().items() if bounds is not None}


class HistorySettings(Section):
    """The searchable history."""

    url: SecretStr | None = Field(
        default=None,
        description="`postgresql://…`, `sqlite:///path`, or `none`. Unset: a file beside the embedded log; with Kafka no history. A secret.",
    )
    retention_ms: DurationMs = Field(
        default=30 * 86_400_000, alias="retention", description="How long ended runs are kept."
    )
    payload_bytes: Bytes = Field(
        default=64 * KIB,
        alias="payload",
        description="Largest input, result or record that is kept; of larger ones, the size.",
    )
    trim_wait_bytes: Bytes = Field(
        default=256 * MIB,
        description="Log of a partition that is kept for a history that is behind; past it, there is a gap.",
    )

    @field_validator("url")
    @classmethod
    def _is_one(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            check_history_url(url.get_secret_value())
        return url


class RouterSettings(Section):
    """Reading of source topics."""

    start: Literal["earliest", "latest"] = Field(
        default="earliest", description="Where a topic begins that was never read."
    )
    max_uncommitted: Count = Field(default=10_000, description="Offsets a router may be ahead of its commit.")


class RunsSettings(Section):
    """How long ended runs are remembered in the log."""

    retry_retention_ms: DurationMs = Field(
        default=30 * 86_400_000,
        alias="retry_retention",
        description="Failed runs stay retriable for this long.",
    )
    client_id_retention_ms: DurationMs = Field(
        default=86_400_000,
        alias="client_id_retention",
        description="Clients' command ids are known for this long after the run's end.",
    )


class LimitsSettings(Section):
    """What nothing may exceed; each has a named error."""

    payload_bytes: Bytes = Field(
        alias="payload", description="Input, result or event data. Unset: `log.max_record_bytes`."
    )
    headers_bytes: Bytes = Field(default=64 * KIB, alias="headers", description="All headers of a record.")
    nesting: Count = Field(default=64, description="Depth of JSON.")
    fan_out: Count = Field(default=10_000, description="Branches of one gather, race or map.")
    tasks_per_run: Count = Field(default=50_000, description="Steps of one run.")
    run_bytes: Bytes = Field(default=8 * MIB, description="What one run keeps in memory.")
    decompressed_batch_bytes: Bytes = Field(
        default=64 * MIB, alias="decompressed_batch", description="A compressed batch, unpacked."
    )


class Settings(Section):
    """Everything there is to set, valid and complete."""

    app: AppSettings = Field(default_factory=AppSettings)
    log: LogSettings
    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    defaults: DefaultsSettings = Field(default_factory=DefaultsSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    history: HistorySettings = Field(default_factory=HistorySettings)
    router: RouterSettings = Field(default_factory=RouterSettings)
    runs: RunsSettings = Field(default_factory=RunsSettings)
    limits: LimitsSettings

    def __init__(self, **sections: Any) -> None:
        super().__init__(**sections)

    @model_validator(mode="before")
    @classmethod
    def _fill_dependent_defaults(cls, data: object) -> object:
        """Defaults that follow from another setting. Wrong values pass through and are refused by their own section."""
        if not isinstance(data, dict):
            return data
        sections = cast("dict[str, object]", data)
        app, log, limits = (_table(sections, name) for name in ("app", "log", "limits"))
        if log is None or limits is None:
            return sections
        embedded = log.get("backend", Backend.EMBEDDED) == Backend.EMBEDDED
        log = {
            "path": os.path.join(".headrace", f"{(app or {}).get('name', 'headrace')}.sqlite"),  # noqa: PTH118 - text until validated
            "partitions": 8 if embedded else 64,
            **log,
        }
        if "payload_bytes" not in limits:
            limits = {"payload": _size_or(900 * KIB, log.get("max_record_bytes")), **limits}
        return {**sections, "log": log, "limits": limits}


def _size_or(default: int, value: object) -> int:
    try:
        return default if value is None else byte_size(value)
    except ValueError:  # refused where it stands
        return default


def _table(sections: dict[str, object], name: str) -> dict[str, object] | None:
    value = sections.get(name, {})
    if isinstance(value, Section):
        return value.model_dump()
    return cast("dict[str, object]", value) if isinstance(value, dict) else None
