"""Names of Headrace's own topics and groups, all derived from `app.name`."""

from __future__ import annotations

import msgspec


class Names(msgspec.Struct, frozen=True):
    """`app` is the setting `app.name`."""

    app: str

    @property
    def runs(self) -> str:
        """The run log."""
        return f"{self.app}.runs"

    @property
    def audit(self) -> str:
        """Unmatched records, with reasons."""
        return f"{self.app}.audit"

    @property
    def refused(self) -> str:
        """Dead letters of outputs."""
        return f"{self.app}.dlq"

    @property
    def members(self) -> str:
        """The group whose members share run log and sources."""
        return f"{self.app}.members"

    @property
    def router(self) -> str:
        """The group of source positions."""
        return f"{self.app}.router"

    @property
    def epochs(self) -> str:
        """The group of replay epochs: hints, one position for each source topic that was rewound."""
        return f"{self.app}.epochs"

    @property
    def owners(self) -> str:
        """The group of checkpoints: one position for each run-log partition."""
        return f"{self.app}.owners"
