"""`Prometheus`: the real one, on loopback, with our rules, scraping what a discovery document lists."""

from __future__ import annotations

import json
import math
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.deploy.tool import RULES, tool
from tests.kafka_broker.broker import free_port


class Prometheus:
    """While the context is open. `folder` keeps its configuration, data and log."""

    def __init__(self, folder: Path, discovery: Path, *, job: str) -> None:
        self._folder = folder
        self._port = free_port()
        self._config = folder / "prometheus.yaml"
        self._log = folder / "prometheus.log"
        self._config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(file) for file in RULES],
                    "scrape_configs": [{"job_name": job, "file_sd_configs": [{"files": [str(discovery)]}]}],
                }
            )
        )

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    tool("prometheus"),
                    f"--config.file={self._config}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    "--enable-feature=exemplar-storage",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def story(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-2000:]

    def ask(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of its HTTP API; None while it does not listen yet."""
        assert self._process.poll() is None, self.story
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return None  # starting
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        except OSError:
            return None

    def values(self, expression: str) -> list[float]:
        """What an instant query gives now, but for NaN."""
        data = self.ask("query", query=expression)
        found = [float(sample["value"][1]) for sample in data["result"]] if data else []
        return [value for value in found if not math.isnan(value)]
