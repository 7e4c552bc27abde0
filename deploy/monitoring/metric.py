"""PromQL, spelled from the table of families: an unknown family or label is refused while generating."""

from __future__ import annotations

from typing import Final

from headrace.observability.metrics import BY_NAME, PREFIX

PROCESS_FAMILIES: Final = frozenset(
    {
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "python_gc_collections_total",
    }
)
"""Of prometheus_client's own collectors, those that dashboards use."""
SUFFIXES: Final = ("_bucket", "_sum", "_count")
INTERVAL: Final = "$__rate_interval"


def full_name(name: str) -> str:
    """The metric's name in a scrape. Raises KeyError for one that is not there."""
    if name in PROCESS_FAMILIES:
        return name
    for suffix in ("", *SUFFIXES):
        family = BY_NAME.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if family is not None:
            return PREFIX + name
    raise KeyError(name)


def labels_of(name: str) -> tuple[str, ...]:
    """The family's own labels."""
    if name in PROCESS_FAMILIES:
        return ("generation",) if name.startswith("python_gc") else ()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return BY_NAME[name].labels


def select(name: str, **where: str) -> str:
    """A dashboard's selector: the family, narrowed by the dashboard's variables and by labels: `state="open"`, `"!open"`, `"~open|closed"`."""
    chosen = ['job=~"$job"', 'instance=~"$instance"']
    if "workflow" in labels_of(name):
        chosen.append('workflow=~"$workflow"')
    unknown = where.keys() - {*labels_of(name), *({"le"} if name.endswith("_bucket") else ())}
    if unknown:
        raise KeyError(f"{name} has no label {', '.join(sorted(unknown))}")
    chosen += [matcher(label, value) for label, value in where.items()]
    return f"{full_name(name)}{{{', '.join(chosen)}}}"


def matcher(label: str, value: str) -> str:
    """One matcher; the value's first character may say how: `!` differs, `~` matches."""
    operator = {"!": "!=", "~": "=~"}.get(value[:1], "=")
    return f'{label}{operator}"{value.lstrip("!~")}"'


def per_second(name: str, by: str = "", **where: str) -> str:
    """A counter's rate, summed."""
    return f"sum{_by(by)} (rate({select(name, **where)}[{INTERVAL}]))"


def total(name: str, by: str = "", **where: str) -> str:
    """A gauge, summed."""
    return f"sum{_by(by)} ({select(name, **where)})"


def quantile(q: float, name: str, by: str = "") -> str:
    """A quantile of a histogram, over all processes together."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({select(name + '_bucket')}[{INTERVAL}])))"


def mean(name: str, by: str = "") -> str:
    """A histogram's mean."""
    return f"{per_second(name + '_sum', by=by)} / {per_second(name + '_count', by=by)}"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
