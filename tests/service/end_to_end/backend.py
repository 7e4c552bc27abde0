"""`Backend`: a kind of log, for a process of ours by its arguments, for a test by a `Log`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.service.log_backend import log_of
from headrace.service.settings import Settings
from headrace.topics.log import Log

PARTITIONS = 4  # of the run log: enough for runs to spread, few enough to start quickly


@dataclass(frozen=True)
class Backend:
    """`servers` is empty for the embedded log."""

    kind: str
    servers: str = ""

    def command(self, app: str) -> list[str]:
        return ["serve", app, "--create-topics"] if self.servers else ["dev", app]

    def settings(self, name: str, folder: Path) -> dict[str, dict[str, Any]]:
        """The settings of an app of this name, as a settings file has them."""
        log: dict[str, Any] = {"backend": self.kind, "partitions": PARTITIONS}
        if not self.servers:
            history = {"url": "none"}  # where a test wants one, it says so: most would only start later for it
            return {"app": {"name": name}, "log": {**log, "path": str(folder / "log.sqlite")}, "history": history}
        return {"app": {"name": name}, "log": log, "kafka": {"bootstrap_servers": self.servers}}

    def log(self, name: str, folder: Path) -> Log:
        """A log that owns nothing, not yet open."""
        return log_of(Settings.model_validate(self.settings(name, folder)), owner=False)
