"""The secrets among the settings, as texts to be masked wherever something is shown or kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.observability.log_text import passwords_in
from headrace.service.history.url import sqlite_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.service.settings import Settings


def secrets_of(settings: Settings) -> Iterator[str]:
    """Each secret, and each way in which a library may quote it: an address whole, and its password alone."""
    kafka, url = settings.kafka, settings.history.url
    for secret in (kafka.sasl_password, kafka.ssl_key_password, settings.api.token):
        if secret is not None:
            yield secret.get_secret_value()
    yield from (value for name, value in kafka.extra.items() if "password" in name and isinstance(value, str))
    address = "" if url is None else url.get_secret_value()
    if "://" in address and sqlite_path(address) is None:  # neither `none` nor a file's place is a secret
        yield address
        yield from passwords_in(address)
