"""A client of the API that believes nothing: every answer is held against the OpenAPI document."""

import http.client
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headrace.service.api import openapi
from headrace.service.api.problem import MEDIA_TYPE
from tests.service.api.schema import faults

PATIENCE_S = 60.0
DOCUMENT: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(openapi.document()))
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """Of a problem."""
        return self.json["code"]


class Client:
    """`url` is what a service has said; paths of the API begin with `/api`."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.url = url
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 0
        self._headers = headers or {}

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, value: object = None, **headers: str) -> Reply:
        """With a JSON body."""
        body = b"" if value is None else msgspec.json.encode(value)
        given = {name.replace("_", "-"): text for name, text in headers.items()}
        return self.ask("POST", path, body, {**(JSON if body else {}), **given})

    def start(self, workflow: str, value: object, **headers: str) -> Reply:
        return self.post("/api/v1/runs", {"workflow": workflow, "input": value}, **headers)

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body=body or None, headers={**self._headers, **(headers or {})})
            answer = connection.getresponse()
            reply = Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()
        check(method, path, reply)
        return reply


def check(method: str, path: str, reply: Reply) -> None:
    """The answer is what the document says of this path."""
    if reply.status >= HTTPStatus.BAD_REQUEST:
        assert reply.headers["Content-Type"] == MEDIA_TYPE
        if method != "HEAD":
            schema = {"$ref": "#/components/schemas/Problem"}
            assert faults(reply.json, schema, DOCUMENT) == []
            assert reply.json["status"] == reply.status
        return
    operation = _operation(method, path.partition("?")[0])
    if operation is None or method == "HEAD" or not reply.body:
        return
    content = operation["responses"][str(reply.status)]["content"]
    media_type = reply.headers["Content-Type"]
    assert faults(reply.json, content[media_type]["schema"], DOCUMENT) == []


def _operation(method: str, path: str) -> dict[str, Any] | None:
    parts = path.strip("/").split("/")
    for template, operations in DOCUMENT["paths"].items():
        wanted = template.strip("/").split("/")
        if len(wanted) == len(parts) and all(
            each.startswith("{") or each == part for each, part in zip(wanted, parts, strict=True)
        ):
            return operations.get(method.lower())
    return None
