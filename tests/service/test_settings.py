"""Settings: where they come from, what is refused, and that all of it is documented."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import integers
from pydantic import ValidationError

from headrace.service.refusal import Refusal
from headrace.service.settings import Backend, Settings
from headrace.service.settings_quantity import byte_size, duration_ms, duration_text, size_text
from headrace.service.settings_secret import secrets_of
from headrace.service.settings_source import Loaded, known_keys, load, nearest, variable
from headrace.topics.errors import SettingsError
from tests.project.repository import ROOT


class Loader:
    """`load` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        toml: str | None = None,
        environ: Mapping[str, str] | None = None,
        flags: Sequence[tuple[str, str]] = (),
        backend: Backend | None = None,
    ) -> Loaded:
        if toml is not None:
            (self.folder / "headrace.toml").write_text(toml)
        return load(flags=flags, environ=environ, directory=self.folder, backend=backend)

    def problems(self, **layers: Any) -> list[SettingsError]:
        """What it refuses."""
        with pytest.raises(SettingsError) as caught:
            self(**layers)
        error = caught.value
        return list(error.problems) if isinstance(error, Refusal) else [error]


@pytest.fixture
def loading(tmp_path: Path) -> Loader:
    return Loader(tmp_path)


def source_of(loaded: Loaded, key: str) -> tuple[object, str]:
    return next((item.value, item.source) for item in loaded.sourced if item.key == key)


# --- layers -----------------------------------------------------------------------------------------------------------


def test_flag_beats_environment_beats_file_beats_default(loading: Loader) -> None:
    toml = "[worker]\nmax_active_runs = 1\nthread_pool = 1\nhandoff_grace = '1s'\n"
    environ = {"HEADRACE_WORKER__MAX_ACTIVE_RUNS": "2", "HEADRACE_WORKER__THREAD_POOL": "2"}
    loaded = loading(toml, environ, [("worker.max_active_runs", "9"), ("worker.max_active_runs", "3")])
    worker = loaded.settings.worker
    assert (worker.max_active_runs, worker.thread_pool, worker.handoff_grace_ms) == (3, 2, 1_000)
    assert worker.shutdown_grace_ms == 30_000
    assert source_of(loaded, "worker.max_active_runs") == (3, "flag")
    assert source_of(loaded, "worker.thread_pool") == (2, "env HEADRACE_WORKER__THREAD_POOL")
    assert source_of(loaded, "worker.handoff_grace") == ("1s", str(loading.folder / "headrace.toml"))
    assert source_of(loaded, "worker.shutdown_grace") == ("30s", "default")


def test_without_a_file_there_are_defaults(loading: Loader) -> None:
    loaded = loading()
    assert loaded.file is None
    assert loaded.settings == Settings()
    assert {item.source for item in loaded.sourced} == {"default"}


def test_a_named_file_must_be_there(loading: Loader) -> None:
    with pytest.raises(SettingsError, match="cannot be read") as caught:
        load(file=loading.folder / "other.toml")
    assert caught.value.code == "HR1003"


def test_a_secret_comes_from_a_file_and_is_masked(loading: Loader) -> None:
    secret = loading.folder / "password"
    secret.write_text("s3cret\n")
    loaded = loading(environ={"HEADRACE_KAFKA__SASL_PASSWORD_FILE": str(secret)})
    password = loaded.settings.kafka.sasl_password
    assert password is not None
    assert password.get_secret_value() == "s3cret"
    assert source_of(loaded, "kafka.sasl_password") == ("********", "env HEADRACE_KAFKA__SASL_PASSWORD_FILE")
    assert "s3cret" not in repr(loaded)


def test_a_secret_is_not_quoted_in_a_refusal(loading: Loader) -> None:
    (problem,) = loading.problems(toml="[kafka]\nsasl_password = ['s3cret']\n")
    assert "s3cret" not in problem.report()


def test_a_file_for_what_is_no_secret_is_an_unknown_setting(loading: Loader) -> None:
    (problem,) = loading.problems(environ={"HEADRACE_APP__NAME_FILE": "x"})
    assert problem.code == "HR1001"


def test_kafka_names_with_dots_go_to_extra_from_every_layer(loading: Loader) -> None:
    loaded = loading(
        "[kafka.extra]\n'retry.backoff.ms' = 5\n",
        {"HEADRACE_KAFKA__EXTRA__FETCH_WAIT_MAX_MS": "6"},
        [("kafka.extra.sasl.password", "s3cret")],
    )
    assert loaded.settings.kafka.extra == {
        "retry.backoff.ms": 5,
        "fetch.wait.max.ms": "6",
        "sasl.password": "s3cret",
    }
    assert source_of(loaded, "kafka.extra.sasl.password") == ("********", "flag")


def test_a_variable_with_one_underscore_is_a_note_not_an_error(loading: Loader) -> None:
    """Kubernetes makes variables like HEADRACE_PORT for a service called headrace."""
    environ = {"HEADRACE_PORT": "tcp://10.0.0.1:80", "HEADRACE_APP_NAME": "shop"}
    loaded = loading(environ=environ)
    assert loaded.settings.app.name == "headrace"
    assert len(loaded.notes) == 1
    assert "HEADRACE_APP__NAME" in loaded.notes[0]


# --- defaults that follow from others ---------------------------------------------------------------------------------


def test_the_backend_is_the_commands_unless_somebody_says_it(loading: Loader) -> None:
    kafka = [("kafka.bootstrap_servers", "localhost:9092")]
    assert loading().settings.log.backend is Backend.EMBEDDED
    assert loading(flags=kafka).settings.log.backend is Backend.KAFKA
    assert loading(flags=kafka, backend=Backend.EMBEDDED).settings.log.backend is Backend.EMBEDDED
    said = loading("[log]\nbackend = 'embedded'\n", flags=kafka, backend=Backend.KAFKA)
    assert said.settings.log.backend is Backend.EMBEDDED


def test_kafka_without_servers_is_refused(loading: Loader) -> None:
    (problem,) = loading.problems(backend=Backend.KAFKA)
    assert problem.code == "HR1004"


def test_path_partitions_and_payload_follow() -> None:
    assert Settings().log.path == Path(".headrace/headrace.sqlite")
    settings = Settings.model_validate(
        {"app": {"name": "shop"}, "log": {"backend": "kafka", "max_record_bytes": "100KiB"}}
    )
    assert settings.log.path == Path(".headrace/shop.sqlite")
    assert (Settings().log.partitions, settings.log.partitions) == (8, 64)
    assert settings.limits.payload_bytes == 102_400
    assert Settings.model_validate({"limits": {"payload": 5}}).limits.payload_bytes == 5


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().app.name = "other"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("kafka.bootstrap_server", "kafka.bootstrap_servers"),
        ("kafka.brokers", None),
        ("app.nmae", "app.name"),
        ("worker.partitions", "log.partitions"),
        ("log.metrics_port", "telemetry.metrics_port"),
        ("limit.payload", "limits.payload"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(loading: Loader, key: str, meant: str | None) -> None:
    (problem,) = loading.problems(flags=[(key, "1")])
    assert problem.code == "HR1001"
    assert key in problem.message
    if meant is not None:
        assert nearest(key) == meant
        assert meant in problem.do


def test_a_section_is_no_setting(loading: Loader) -> None:
    (problem,) = loading.problems(toml="worker = 4\n")
    assert "section" in problem.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("log.backend", "redis"),
        ("log.path", "."),
        ("log.path", "/"),
        ("log.path", tempfile.gettempdir()),
        ("log.partitions", "0"),
        ("log.partitions", "8.0"),
        ("log.partitions", "many"),
        ("log.max_record_bytes", "1 potato"),
        ("worker.processes", "0"),
        ("worker.processes", "x"),
        ("worker.handoff_grace", "10"),
        ("worker.handoff_grace", "40s"),
        ("defaults.timeout", "1s1m"),
        ("defaults.retry.backoff", "cubic"),
        ("defaults.timeout", "0s"),
        ("defaults.run_timeout", "0s"),
        ("defaults.retry.cap", "100ms"),
        ("defaults.retry.deadline", "0s"),
        ("telemetry.metrics_port", "65536"),
        ("telemetry.parent_from_kafka", "yes"),
        ("telemetry.log_level", "loud"),
        ("app.name", "my app"),
        ("kafka.bootstrap_servers", "localhost"),
        ("kafka.bootstrap_servers", "localhost:http"),
        ("kafka.security_protocol", "SASL_SSL"),
        ("kafka.ssl_key_file", "key.pem"),
        ("router.start", "middle"),
        ("api.base_path", "headrace"),
    ],
)
def test_a_value_that_cannot_be_is_refused_once(loading: Loader, key: str, value: str) -> None:
    (problem,) = loading.problems(flags=[(key, value)])
    assert problem.code == "HR1002"
    assert key.partition(".")[0] in problem.message
    assert problem.why


@pytest.mark.parametrize("value", ["true", "3.5", "[1]", "'many'"])
def test_a_file_has_no_loose_numbers(loading: Loader, value: str) -> None:
    (problem,) = loading.problems(toml=f"[log]\npartitions = {value}\n")
    assert problem.code == "HR1002"


def test_all_that_is_wrong_is_said_at_once(loading: Loader) -> None:
    problems = loading.problems(
        toml="[app]\nnmae = 'x'\n[log]\npartitions = 0\n",
        environ={"HEADRACE_WORKER__PROCESSES": "none", "HEADRACE_NOSUCH__KEY": "1"},
    )
    assert sorted(problem.code for problem in problems) == ["HR1001", "HR1001", "HR1002", "HR1002"]


def test_a_file_that_is_no_toml_is_refused(loading: Loader) -> None:
    (problem,) = loading.problems(toml="[app\n")
    assert problem.code == "HR1003"
    assert "line" in problem.why


# --- quantities -------------------------------------------------------------------------------------------------------


@given(integers(min_value=0, max_value=10**12))
def test_a_duration_survives_being_written(ms: int) -> None:
    assert duration_ms(duration_text(ms)) == ms


@given(integers(min_value=1, max_value=2**50))
def test_a_size_survives_being_written(size: int) -> None:
    assert byte_size(size_text(size)) == size


@pytest.mark.parametrize(
    ("text", "ms"),
    [("250ms", 250), ("2s", 2_000), ("1h30m", 5_400_000), ("1.5s", 1_500), ("30d", 2_592_000_000), (" 1m ", 60_000)],
)
def test_durations(text: str, ms: int) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize(
    "value", ["", "5", 5, 5.0, True, "5 s", "s", "1s1m", "1s1s", "-1s", "1w", "1h 30m", "١s", None]
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="30s"):
        duration_ms(value)


@pytest.mark.parametrize(
    ("value", "size"), [(1024, 1024), ("1024", 1024), ("900KiB", 921_600), ("1.5MiB", 1_572_864), ("8 MB", 8_000_000)]
)
def test_sizes(value: object, size: int) -> None:
    assert byte_size(value) == size


@pytest.mark.parametrize("value", ["", "KiB", "-1", "1.5", "1kib", "0x10", True, 1.5, None])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        byte_size(value)


# --- documentation ----------------------------------------------------------------------------------------------------


def test_every_setting_has_a_line_in_the_documentation() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    documented = re.findall(r"^\| `([a-z_.]+)` \|", text, re.MULTILINE)
    assert documented == [key.name for key in known_keys()]


def test_the_documented_defaults_are_true() -> None:
    loaded = load(environ={}, directory=Path("/nonexistent"))
    text = (ROOT / "docs" / "settings.md").read_text()
    documented = dict(re.findall(r"^\| `([a-z_.]+)` \|([^|]*)\|", text, re.MULTILINE))
    for item in loaded.sourced:
        shown = documented[item.key].strip().strip("`")
        if shown not in {"", "see there"}:
            sizes = {
                str(item.value),
                size_text(item.value) if isinstance(item.value, int) else "",
                str(item.value).lower(),
            }
            assert shown in sizes, item.key


def test_bounds_of_a_histogram_are_set_in_every_layer(loading: Loader) -> None:
    loaded = loading(
        "[telemetry.buckets]\nrun_duration_seconds = [1, 60, 3600.5]\n",
        {"HEADRACE_TELEMETRY__BUCKETS__TASK_DURATION_SECONDS": "0.5, 5"},
    )
    assert loaded.settings.telemetry.bounds == {
        "run_duration_seconds": (1.0, 60.0, 3600.5),
        "task_duration_seconds": (0.5, 5.0),
    }
    assert source_of(loaded, "telemetry.buckets.run_duration_seconds")[0] == [1.0, 60.0, 3600.5]


@pytest.mark.parametrize(
    "bounds", ["", "1,1", "2,1", "0,1", "-1", "1,inf", "nan", "a", ",".join(map(str, range(1, 60)))]
)
def test_bounds_that_make_no_histogram_are_refused(loading: Loader, bounds: str) -> None:
    (problem,) = loading.problems(flags=[("telemetry.buckets.run_duration_seconds", bounds)])
    assert problem.code == "HR1002"
    assert "telemetry.buckets.run_duration_seconds" in problem.message


def test_a_histogram_that_is_not_there_has_no_bounds(loading: Loader) -> None:
    (problem,) = loading.problems(flags=[("telemetry.buckets.run_durations", "1,2")])
    assert problem.code == "HR1001"
    assert "telemetry.buckets.run_duration_seconds" in problem.do


def test_every_key_has_a_variable() -> None:
    assert variable("kafka.bootstrap_servers") == "HEADRACE_KAFKA__BOOTSTRAP_SERVERS"
    names = [variable(key.name) for key in known_keys()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("none", set()),
        ("sqlite:///runs.sqlite", set()),
        ("postgresql://me:secret@db/runs", {"postgresql://me:secret@db/runs", "secret"}),
    ],
)
def test_of_where_the_history_is_only_a_password_is_a_secret(url: str, masked: set[str]) -> None:
    settings = Settings.model_validate({"history": {"url": url}})
    assert set(secrets_of(settings)) == masked
