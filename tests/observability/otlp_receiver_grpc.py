"""A small OTLP receiver: gRPC."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class _Export(grpc.GenericRpcHandler):
    def __init__(self, requests: SimpleQueue[ExportTraceServiceRequest]) -> None:
        self._requests = requests

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method != _METHOD:
            return None  # UNIMPLEMENTED
        return grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )

    def _export(self, request: ExportTraceServiceRequest, _context: Any) -> ExportTraceServiceResponse:
        self._requests.put(request)
        return ExportTraceServiceResponse()


class GrpcOtlpReceiver:
    """`requests` holds what was exported."""

    def __init__(self) -> None:
        self.requests: SimpleQueue[ExportTraceServiceRequest] = SimpleQueue()
        self._server: Any = grpc.server(ThreadPoolExecutor(2), handlers=[_Export(self.requests)])
        self._port: int = self._server.add_insecure_port("127.0.0.1:0")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(grace=None).wait()
