"""Where settings come from: flag, environment, `headrace.toml`, default. Each value remembers its source.

`load` is the only way in. It raises `SettingsError` (exit code 7) with everything that is wrong:

    HR1001  an unknown key          HR1003  the file cannot be read or is no TOML
    HR1002  a value that cannot be  HR1004  a setting that is needed here is missing
"""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
from pydantic import BaseModel, SecretStr, ValidationError

from headrace.service.refusal import refuse
from headrace.service.settings import Backend, Settings
from headrace.service.settings_quantity import duration_text
from headrace.topics.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic.fields import FieldInfo

FILE_NAME = "headrace.toml"
VALUE_INVALID = "HR1002"
PREFIX = "HEADRACE_"
MASK = "********"
EXTRA = "kafka.extra."
_IT = re.compile(r"^(?:Input|String|Value) should")


class Given(NamedTuple):
    """A value before validation, and who said it."""

    value: object
    source: str


class Sourced(msgspec.Struct, frozen=True):
    """A setting for people: `value` is plain JSON, secrets masked; `source` is `default`, a file, variable or flag."""

    key: str
    value: object
    source: str


class Loaded(msgspec.Struct, frozen=True):
    """Valid settings and where each came from. `notes` stop nothing: a variable that looks mistyped, say."""

    settings: Settings
    sourced: tuple[Sourced, ...]
    file: Path | None
    notes: tuple[str, ...] = ()


class Key(NamedTuple):
    """A known setting: its dotted name, whether it is a secret or a duration, and its line for `docs/settings.md`."""

    name: str
    secret: bool
    duration: bool
    description: str


def load(
    *,
    flags: Sequence[tuple[str, str]] = (),
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
    directory: Path | None = None,
    backend: Backend | None = None,
) -> Loaded:
    """Read all layers. `flags` are (dotted key, text), the last wins.

    Without `file`, `headrace.toml` in `directory` is read if it is there. `backend` is what the command defaults to;
    None means: Kafka if `kafka.bootstrap_servers` is set, else embedded.
    """
    problems: list[SettingsError] = []
    path = file or ((directory or Path.cwd()) / FILE_NAME)
    given: dict[str, Given] = {}
    notes: list[str] = []
    if file is not None or path.is_file():
        given.update(_from_file(path, problems))
    else:
        path = None
    from_environ, notes = _from_environment(environ or {}, problems)
    given.update(from_environ)
    given.update({key: Given(value, "flag") for key, value in flags})
    _refuse_unknown(given, problems)
    if "log.backend" not in given:
        default = backend or (Backend.KAFKA if given.get("kafka.bootstrap_servers") else Backend.EMBEDDED)
        given["log.backend"] = Given(default.value, "default")
    settings = _validated(given, problems)
    refuse(problems)
    if settings is None:  # a refusal has been raised above
        raise SettingsError("The settings are not valid.", do="Correct what `headrace config show --sources` shows.")
    if settings.log.backend is Backend.KAFKA and not settings.kafka.bootstrap_servers:
        raise SettingsError(
            "kafka.bootstrap_servers is not set.",
            code="HR1004",
            why=f"log.backend is kafka ({given['log.backend'].source}).",
            do=f"Give --bootstrap-servers host:9092, or set {variable('kafka.bootstrap_servers')}, or in {FILE_NAME}.",
        )
    return Loaded(settings, tuple(_sourced(settings, given)), path, tuple(notes))


@cache
def known_keys() -> tuple[Key, ...]:
    """Every key there is, in the order of the sections. `kafka.extra` takes any name below it."""
    return tuple(_keys(Settings))


def variable(key: str) -> str:
    """The environment variable of a key."""
    return PREFIX + key.upper().replace(".", "__")


def nearest(key: str) -> str | None:
    """The known key that was probably meant."""
    names = [known.name for known in known_keys()]
    last_words = {name.rpartition(".")[2]: name for name in names}
    if match := get_close_matches(key, names, n=1, cutoff=0.75):
        return match[0]
    if match := get_close_matches(key.rpartition(".")[2], last_words, n=1, cutoff=0.7):
        return last_words[match[0]]
    return next(iter(get_close_matches(key, names, n=1, cutoff=0.5)), None)


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if table := _table(field):
            yield from _keys(table, f"{key}.")
        else:
            kind = str(cast("object", field.annotation))
            yield Key(key, "SecretStr" in kind, name.endswith("_ms"), field.description or "")


def _table(field: FieldInfo) -> type[BaseModel] | None:
    kind = cast("object", field.annotation)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _from_file(path: Path, problems: list[SettingsError]) -> dict[str, Given]:
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        why = f"{error.strerror or error}."
        problems.append(
            SettingsError(f"{path} cannot be read.", code="HR1003", why=why, do="Correct the path or its permissions.")
        )
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        do = "Correct that line; docs/settings.md has an example."
        problems.append(SettingsError(f"{path} is not valid TOML.", code="HR1003", why=f"{error}.", do=do))
        return {}
    return {key: Given(value, str(path)) for key, value in _flat(tables)}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, Any]", value), f"{key}.")
        else:
            yield key, value


def _from_environment(environ: Mapping[str, str], problems: list[SettingsError]) -> tuple[dict[str, Given], list[str]]:
    """Variables with a double underscore are settings; others may be foreign: Kubernetes makes `HEADRACE_PORT`."""
    secrets = {variable(known.name): known.name for known in known_keys() if known.secret}
    by_single_underscore = {variable(known.name).replace("__", "_"): known.name for known in known_keys()}
    given: dict[str, Given] = {}
    notes: list[str] = []
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX):
            continue
        source = f"env {name}"
        if name.endswith("_FILE") and (key := secrets.get(name.removesuffix("_FILE"))):
            try:
                given[key] = Given(Path(value).read_text(encoding="utf-8").rstrip("\r\n"), source)
            except (OSError, UnicodeDecodeError) as error:
                do = "Correct the path, its permissions, or its content: UTF-8 text."
                message = f"{value} cannot be read ({source})."
                problems.append(SettingsError(message, code="HR1003", why=f"{error}.", do=do))
        elif "__" in name:
            given.setdefault(_key_of(name), Given(value, source))
        elif key := by_single_underscore.get(name):
            notes.append(f"{name} is not read: the setting {key} is {variable(key)}, with two underscores.")
    return given, notes


def _key_of(name: str) -> str:
    key = name.removeprefix(PREFIX).lower().replace("__", ".")
    return EXTRA + key.removeprefix(EXTRA).replace("_", ".") if key.startswith(EXTRA) else key


def _refuse_unknown(given: dict[str, Given], problems: list[SettingsError]) -> None:
    """Take unknown keys out of `given`, each with the nearest known one."""
    known = {key.name for key in known_keys()}
    for key in [key for key in given if key not in known and not key.startswith(EXTRA)]:
        source = given.pop(key).source
        section = any(name.startswith(f"{key}.") for name in known)
        meant = nearest(key)
        problems.append(
            SettingsError(
                f"{key} is a section, not a setting ({source})." if section else f"Unknown setting {key} ({source}).",
                code="HR1001",
                why=f"Write a table: [{key}]." if section else "",
                do="" if section else f"Did you mean {meant}?" if meant else "See docs/settings.md for all settings.",
            )
        )


def _validated(given: Mapping[str, Given], problems: list[SettingsError]) -> Settings | None:
    tree: dict[str, Any] = {}
    for key, item in given.items():
        if key.startswith(EXTRA):
            tree.setdefault("kafka", {}).setdefault("extra", {})[key.removeprefix(EXTRA)] = item.value
            continue
        *sections, name = key.split(".")
        table = tree
        for section in sections:
            table = table.setdefault(section, {})
        table[name] = item.value
    try:
        return Settings.model_validate(tree)
    except ValidationError as invalid:
        problems.extend(
            _invalid(".".join(str(part) for part in error["loc"]), error["msg"], given)
            for error in invalid.errors(include_url=False, include_context=False, include_input=False)
        )
    return None


def _invalid(where: str, message: str, given: Mapping[str, Given]) -> SettingsError:
    """A value that cannot be. Union branches of pydantic add a last word to the place; it is cut off."""
    while where and where not in given and not any(key.startswith(where) for key in given):
        where = where.rpartition(".")[0]
    item = given.get(where)
    secret = any(known.name == where and known.secret for known in known_keys())
    shown = f" = {MASK if secret else item.value!r} ({item.source})" if item else ""
    return SettingsError(
        f"{where}{shown} cannot be used.",
        code=VALUE_INVALID,
        why=_IT.sub("It should", message.removeprefix("Value error, ")).rstrip(".") + ".",
        do="See docs/settings.md for what is allowed.",
    )


def _sourced(settings: Settings, given: Mapping[str, Given]) -> Iterator[Sourced]:
    for known in known_keys():
        value: Any = settings
        for name in known.name.split("."):
            value = _attribute(value, name)
        if known.name == "kafka.extra":
            for name, extra in settings.kafka.extra.items():
                shown = MASK if "password" in name else extra
                yield Sourced(EXTRA + name, shown, given[EXTRA + name].source)
            continue
        source = given[known.name].source if known.name in given else "default"
        yield Sourced(known.name, _plain(known, value), source)


def _attribute(section: BaseModel, alias: str) -> Any:
    fields = type(section).model_fields
    return getattr(section, next(name for name, field in fields.items() if (field.alias or name) == alias))


def _plain(known: Key, value: object) -> object:
    match value:
        case SecretStr():
            return MASK
        case Path():
            return str(value)
        case StrEnum():
            return value.value
        case tuple():
            return list(cast("tuple[object, ...]", value))
        case int() if known.duration:
            return duration_text(value)
        case _:
            return value
