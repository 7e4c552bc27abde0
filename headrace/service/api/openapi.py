"""The OpenAPI 3.1 document, made of the route table and of the types of its bodies: there is no second description that could differ."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.service.api.problem import MEDIA_TYPE, Problem
from headrace.service.api.route_table import ROUTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.service.api.route import Route

_REF = "#/components/schemas/{name}"


def document(base_path: str = "/") -> dict[str, Any]:
    """The whole document, as JSON types. `base_path`: where a proxy puts the API."""
    types = _types(ROUTES)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headrace",
            "version": version("headrace"),
            "description": "Durable workflows on Kafka: runs, events, and what is known of them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": base_path.rstrip("/") or "/"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "api.auth = token"}},
        },
    }


def _types(routes: Sequence[Route]) -> list[Any]:
    found: list[Any] = [Problem]
    for route in routes:
        for each in (*route.answers.values(), route.body):
            if each is not None and all(each is not known for known in found):
                found.append(each)
    return found


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "responses": {
            **{str(status): _response(route, kind, schemas) for status, kind in route.answers.items()},
            "default": {"description": "Problem details.", "content": {MEDIA_TYPE: {"schema": schemas[repr(Problem)]}}},
        },
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.variables
    ] + [
        {"name": each.name, "in": each.place, "description": each.description, "schema": each.schema}
        for each in route.parameters
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.consumes:
        content = {media_type: {"schema": schemas[repr(route.body)]} for media_type in route.consumes}
        operation["requestBody"] = {"content": content}
    return operation


def _response(route: Route, kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "string"} if kind is None else schemas[repr(kind)]
    return {"description": route.summary, "content": {route.media_type: {"schema": schema}}}
