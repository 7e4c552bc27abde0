"""`Code`: what the interpreter needs of a workflow. The definition is above us, in `service/definitions/workflow.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from headrace.service.engine.run import Run


class Code(Protocol):
    """What the interpreter needs of a workflow definition."""

    @property
    def name(self) -> str:
        """The workflow's name."""
        ...

    def begin(self, run: Run, raw: bytes) -> Coroutine[Any, Any, Any]:
        """Decode the input and make the coroutine. Raises PayloadError."""
        ...

    def encode_result(self, value: object) -> bytes:
        """The result as JSON. Raises PayloadError."""
        ...
