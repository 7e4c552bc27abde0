"""The metrics port.

`/metrics`, `/livez`, `/readyz`, `/startupz`, `/discovery`, answered by threads of its own, so that a busy loop can still be looked
at.

No authentication, nothing but GET and HEAD, one request per connection. A peer that neither writes nor reads costs
one thread until it is 10 s old, and there are at most 16 of them: the oldest makes room for the newest. Whoever does not
get a whole and good answer is counted.
"""

from __future__ import annotations

import errno
import gzip
import re
import socket
import sys
import threading
import time
from contextlib import AbstractContextManager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import parse_qs, urlsplit

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from headrace.observability.health import Health
from headrace.observability.label import PortError
from headrace.topics.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from socketserver import BaseServer

CONNECTIONS_MAX: Final = 16
"""A scraper, a kubelet and a few people; each is a thread."""
CONNECTION_S: Final = 10.0
"""The life of one connection; Prometheus' own scrape timeout is 10 s."""
TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]+)?")
_EVERYWHERE: Final = re.compile(rb'"(?:0\.0\.0\.0|\[::\]):')

Answer = tuple[HTTPStatus, str, bytes]


class PortTaken(SettingsError):
    """Something else listens on the metrics port."""

    code = "HR1301"


class Exposition(AbstractContextManager["Exposition"]):
    """The port, while the context is open. Leaving it may take as long as `serve_forever` polls (0.1 s)."""

    def __init__(
        self,
        registry: CollectorRegistry,
        health: Health,
        *,
        host: str = "127.0.0.1",
        port: int = 9464,
        discovery: Callable[[], bytes] = lambda: b"[]\n",
    ) -> None:
        self.errors = PortErrors()
        self._pages = Pages(registry, health, discovery)
        self._host = host
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is bound (`port=0` takes a free one)."""
        return self._port if self._server is None else int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where to point a browser, without path."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def __enter__(self) -> Self:
        """Bind and serve. Raises `PortTaken`, or `SettingsError` for a host that is not ours."""
        try:
            self._server = _Server((self._host, self._port), self._pages, self.errors)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise (PortTaken if taken else SettingsError)(
                f"Cannot listen on {self._host}:{self._port} for metrics: {error.strerror or error}.",
                code=PortTaken.code if taken else "HR1302",
                why="Another process listens there." if taken else "The address cannot be bound on this machine.",
                do="Choose another port with --metrics-port (telemetry.metrics_port), or 0 for a free one."
                if taken
                else "Correct telemetry.metrics_host and telemetry.metrics_port.",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="headrace-metrics", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.drop_all()


class PortErrors:
    """Requests without a whole and good answer, by reason, since the port is open."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(PortError, 0)
        self._lock = threading.Lock()

    def add(self, reason: PortError) -> None:
        """One more, from any thread."""
        with self._lock:
            self._counts[reason] += 1

    def __call__(self) -> dict[PortError, int]:
        """Now, from any thread. Every reason is there."""
        with self._lock:
            return dict(self._counts)


class Pages:
    """What each path answers. Pure but for the registry and the health that it reads."""

    def __init__(
        self, registry: CollectorRegistry, health: Health, discovery: Callable[[], bytes] = lambda: b"[]\n"
    ) -> None:
        self._discovery = discovery
        self._registry = registry
        self._health = health
        self._building = threading.Lock()

    def answer(self, target: str, accept: str, host: str = "") -> Answer:
        """Status, content type and body for a GET. `host`: how the asker names this machine."""
        try:
            url = urlsplit(target)
        except ValueError:
            return HTTPStatus.BAD_REQUEST, TEXT, b"no path\n"
        verbose = "verbose" in parse_qs(url.query, keep_blank_values=True)
        match url.path:
            case "/metrics":
                return self._metrics(accept)
            case "/livez":
                return self._verdict(ok=self._health.alive, verbose=verbose)
            case "/readyz":
                return self._verdict(ok=self._health.ready, verbose=verbose)
            case "/startupz":
                return self._verdict(ok=self._health.started, verbose=verbose)
            case "/discovery":
                return HTTPStatus.OK, JSON, _seen_from_outside(self._discovery(), host)
            case "/":
                return HTTPStatus.OK, TEXT, b"/metrics\n/livez\n/readyz?verbose\n/startupz\n/discovery\n"
            case _:
                return HTTPStatus.NOT_FOUND, TEXT, b"not found\n"

    def _metrics(self, accept: str) -> Answer:
        encode, content_type = choose_encoder(accept)
        with self._building:  # one at a time: ten scrapers must not take the interpreter from the event loop
            return HTTPStatus.OK, content_type, encode(self._registry)

    def _verdict(self, *, ok: bool, verbose: bool) -> Answer:
        status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        if verbose:
            return status, JSON, msgspec.json.format(msgspec.json.encode(self._health.report()))
        return status, TEXT, b"ok\n" if ok else f"{self._health.report().status}\n".encode()


def _seen_from_outside(document: bytes, host: str) -> bytes:
    """Who listens on all addresses can be reached under the one that was asked: 0.0.0.0 would be the asker's own machine."""
    name = _HOST.fullmatch(host)
    if name is None:
        return document
    return _EVERYWHERE.sub(b'"' + name[1].encode() + b":", document)


class _Server(ThreadingHTTPServer):
    """Threads with a bound, and connections with an end."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], pages: Pages, errors: PortErrors) -> None:
        self.pages = pages
        self.errors = errors
        self._open: dict[socket.socket, float] = {}
        self._open_lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        """Without the reverse look-up of the host's name that the base class makes: it may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "headrace", int(self.server_address[1])

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        assert isinstance(request, socket.socket)  # noqa: S101 - tuples are for datagrams
        with self._open_lock:
            self._open[request] = time.monotonic()
            oldest = next(iter(self._open)) if len(self._open) > CONNECTIONS_MAX else None
            if oldest is not None:
                del self._open[oldest]
        if oldest is not None:
            self.errors.add(PortError.CROWDED)
            _cut(oldest)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Called by `serve_forever` every 0.1 s: end what is too old."""
        before = time.monotonic() - CONNECTION_S
        with self._open_lock:
            old = [connection for connection, since in self._open.items() if since < before]
            for connection in old:
                del self._open[connection]
        for connection in old:
            self.errors.add(PortError.TIMED_OUT)
            _cut(connection)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        with self._open_lock:
            self._open.pop(request, None)  # pyright: ignore[reportArgumentType, reportCallIssue] - as above
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that went away is no news, and the port must not write to stderr. What we ended is counted already."""
        with self._open_lock:
            ended_by_peer = request in self._open
        if ended_by_peer:
            self.errors.add(PortError.GONE if isinstance(sys.exception(), OSError) else PortError.FAILED)

    def drop_all(self) -> None:
        """End all connections that are still open."""
        with self._open_lock:
            connections = list(self._open)
            self._open.clear()
        for connection in connections:
            _cut(connection)


def _cut(connection: socket.socket) -> None:
    """End a connection under the thread that serves it: its read or write fails at once, and it closes the socket."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


class _Connection(BaseHTTPRequestHandler):
    """One request."""

    server_version = "headrace"
    sys_version = ""
    timeout = 2 * CONNECTION_S  # the server ends it first, and counts that
    server: BaseServer

    def do_GET(self) -> None:
        self._answer(body_wanted=True)

    def do_HEAD(self) -> None:
        self._answer(body_wanted=False)

    def _answer(self, *, body_wanted: bool) -> None:
        assert isinstance(self.server, _Server)  # noqa: S101 - who else makes connections
        try:
            status, content_type, body = self.server.pages.answer(
                self.path, self.headers.get("Accept", ""), self.headers.get("Host", "")
            )
        except Exception as error:  # noqa: BLE001 - a collector's failure is the scraper's to see
            self.server.errors.add(PortError.FAILED)
            status, content_type = HTTPStatus.INTERNAL_SERVER_ERROR, TEXT
            body = f"Cannot read the metrics: {type(error).__name__}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Cache-Control", "no-store")
        if len(body) > 1024 and gzip_accepted(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, compresslevel=4)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body_wanted:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Health checks are not worth a line."""
