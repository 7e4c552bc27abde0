"""`headrace spec openapi`: descriptions of what others may build on, for tools."""

import sys

import msgspec

from headrace.service.cli.option import Common, options


def openapi(*, common: Common | None = None) -> None:
    """Print the OpenAPI 3.1 document of the HTTP API, as JSON. It needs no service."""
    from headrace.service.api.openapi import document

    settings = options(common).load().settings
    raw = msgspec.json.encode(document(settings.api.base_path))
    sys.stdout.write(msgspec.json.format(raw, indent=2).decode() + "\n")
