"""A small OTLP receiver: HTTP, protobuf. Says which spans came; or hangs, for those who must live with that."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class OtlpReceiver:
    """`requests` holds what was posted to /v1/traces. With `hangs`, nothing is ever answered until the end."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.requests: SimpleQueue[ExportTraceServiceRequest] = SimpleQueue()
        self.asked = threading.Event()
        self._over = threading.Event()
        if not hangs:
            self._over.set()
        receiver = self

        class Connection(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.asked.set()
                receiver._over.wait()
                assert self.path == "/v1/traces"
                receiver.requests.put(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Connection)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def spans(self) -> list[Span]:
        """All that came since this was called last."""
        found: list[Span] = []
        while self.requests.qsize():
            for resource in self.requests.get().resource_spans:
                for scope in resource.scope_spans:
                    found += scope.spans
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
