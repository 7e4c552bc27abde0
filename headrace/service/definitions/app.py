"""`App`: what loading a user's file, folder or module found. A value; made by `loader.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from headrace.handlers.definition import Handler
from headrace.service.definitions.workflow import Workflow
from headrace.topics.schedule import ScheduleDefinition
from headrace.topics.version_order import version_order

AnyWorkflow = Workflow[Any, Any]
AnyHandler = Handler[*tuple[Any, ...], Any]

Feed = Callable[[int], AsyncIterator[Any]]
"""An app's `feed(seed)`: what it yields, `dev --feed` publishes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class App:
    """All definitions of one app, judged and with their types resolved.

    `name` is a proposal for the setting of that name: it is fit for a topic's name. `root` is the folder that the app was loaded from (or the one file of an
    installed module); `modules` are the names of its loaded modules. `warnings` are lines for people, about what works but is hardly meant.
    """

    name: str
    root: Path
    modules: tuple[str, ...]
    workflows: tuple[AnyWorkflow, ...]
    handlers: tuple[AnyHandler, ...]
    feed: Feed | None = None
    warnings: tuple[str, ...] = ()
    _by_id: dict[tuple[str, str, str], AnyWorkflow] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_id", {workflow.id: workflow for workflow in self.workflows})

    def workflow(self, namespace: str, name: str, version: str) -> AnyWorkflow | None:
        """The definition with this identity; `None`: it is not loaded here, so its runs are held."""
        return self._by_id.get((namespace, name, version))

    def newest(self) -> tuple[AnyWorkflow, ...]:
        """The newest loaded version of each workflow, in the order of namespace and name: what new runs start with."""
        return tuple(self._newest.values())

    def newest_of(self, namespace: str, name: str) -> AnyWorkflow | None:
        """The newest loaded version of one workflow; `None`: there is none."""
        return self._newest.get((namespace, name))

    @cached_property
    def _newest(self) -> dict[tuple[str, str], AnyWorkflow]:
        return {(workflow.namespace, workflow.name): workflow for workflow in newest(self.workflows)}

    @cached_property
    def versions(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """The loaded versions of each workflow, by namespace and name, in the order in which they were found."""
        found: dict[tuple[str, str], list[str]] = {}
        for workflow in self.workflows:
            found.setdefault((workflow.namespace, workflow.name), []).append(workflow.version)
        return {name: tuple(versions) for name, versions in found.items()}

    @cached_property
    def topics_by_type(self) -> dict[str | None, frozenset[str]]:
        """The topics on which the newest versions wait for events of a type; None: of any."""
        found: dict[str | None, set[str]] = {}
        for workflow in self.newest():
            for trigger in workflow.triggers:
                found.setdefault(trigger.type, set()).add(trigger.topic)
        return {type_: frozenset(topics) for type_, topics in found.items()}

    @cached_property
    def source_topics(self) -> tuple[str, ...]:
        """The topics that the newest versions have triggers on, sorted."""
        return tuple(sorted({trigger.topic for workflow in self.newest() for trigger in workflow.triggers}))

    @cached_property
    def schedules(self) -> dict[str, ScheduleDefinition]:
        """The schedules of the newest versions, by id."""
        return {id_: each for workflow in self.newest() for id_, each in workflow.scheduled.items()}

    @property
    def emitted_topics(self) -> tuple[str, ...]:
        """The topics that any loaded version says it emits to, sorted."""
        return tuple(sorted({topic for workflow in self.workflows for topic in workflow.emits}))


def newest(workflows: tuple[AnyWorkflow, ...]) -> tuple[AnyWorkflow, ...]:
    """The newest version of each workflow, in the order of namespace and name."""
    found: dict[tuple[str, str], AnyWorkflow] = {}
    for workflow in sorted(workflows, key=lambda each: (each.namespace, each.name, version_order(each.version))):
        found[workflow.namespace, workflow.name] = workflow
    return tuple(found.values())
