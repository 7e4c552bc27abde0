"""The handlers of a loaded app, by name. Filled by the app loader, never by importing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.topics.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headrace.handlers.definition import Handler

    AnyHandler = Handler[*tuple[Any, ...], Any]


class HandlerRegistry:
    """Name -> Handler. Names are unique in an app: task references and metrics use them."""

    def __init__(self, handlers: Iterable[AnyHandler] = ()) -> None:
        self._handlers: dict[str, AnyHandler] = {}
        for handler in handlers:
            self.add(handler)

    def add(self, handler: AnyHandler) -> None:
        """Load and take a handler; the same one again is fine. DefinitionError: HR2038 the name is taken; those of
        `load`.
        """
        known = self._handlers.get(handler.name)
        if known is not None and known is not handler:
            raise DefinitionError(
                f"Two handlers are called {handler.name}: at {known.place} and at {handler.place}.",
                code="HR2038",
                do="Rename one, or give it another name with @handler(name=...).",
            )
        handler.load()
        self._handlers[handler.name] = handler

    def __getitem__(self, name: str) -> AnyHandler:
        """The handler. KeyError: there is none of that name."""
        return self._handlers[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is one of that name."""
        return name in self._handlers

    def __iter__(self) -> Iterator[AnyHandler]:
        """All, in the order they were added."""
        return iter(self._handlers.values())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._handlers)
