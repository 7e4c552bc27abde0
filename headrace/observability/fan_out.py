"""`FanOut`.

Several observers as one. An observer that raises is reported once and switched off; the shell and the other observers
never notice.

Each hook is bound once to those who listen: nobody listens = one empty call, one listens = one call more than without
this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.observability.observer import HOOKS, Observer
from headrace.observability.silent import Silent

Report = Callable[[str, str, Exception], None]
"""Called once per failed observer with its class name, the hook and the error. May itself fail without harm."""


class FanOut(Silent):
    """Tells each hook to all observers that override it, in order."""

    def __init__(self, observers: Sequence[Observer], report: Report) -> None:
        self._observers = list(observers)
        self._report = report
        self._bind()

    def listens(self, hook: str) -> bool:
        """Does anybody want this hook? For callers that would have to work to make the struct."""
        return any(_overrides(observer, hook) for observer in self._observers)

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Those that are still switched on."""
        return tuple(self._observers)

    def _bind(self) -> None:
        for hook in HOOKS:
            listeners = [observer for observer in self._observers if _overrides(observer, hook)]
            setattr(self, hook, self._caller(hook, listeners))

    def _caller(self, hook: str, listeners: list[Observer]) -> Callable[[object], None]:
        if not listeners:
            return _nothing
        if len(listeners) == 1:
            only, tell_it = listeners[0], getattr(listeners[0], hook)

            def tell_one(told: object, /) -> None:
                try:
                    tell_it(told)
                except Exception as error:  # noqa: BLE001 - an observer never takes part
                    self._switch_off(only, hook, error)

            return tell_one
        targets = [(observer, getattr(observer, hook)) for observer in listeners]

        def tell_all(told: object, /) -> None:
            for observer, tell in targets:
                try:
                    tell(told)
                except Exception as error:  # noqa: BLE001 - as above
                    self._switch_off(observer, hook, error)

        return tell_all

    def _switch_off(self, observer: Observer, hook: str, error: Exception) -> None:
        if all(other is not observer for other in self._observers):
            return  # it failed again within the call in which it was switched off
        self._observers = [other for other in self._observers if other is not observer]
        self._bind()
        try:
            self._report(type(observer).__name__, hook, error)
        except Exception:  # noqa: BLE001 - reporting is observing too
            return


def _overrides(observer: Observer, hook: str) -> bool:
    own = getattr(type(observer), hook, None)
    return own is not getattr(Silent, hook) or hook in getattr(observer, "__dict__", {})


def _nothing(_told: object, /) -> None:
    pass
