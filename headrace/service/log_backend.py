"""From settings to the one `Log`.

Used by `composition.py` and by the commands that read; imports only what is chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.service.settings import Backend

if TYPE_CHECKING:
    from pydantic import SecretStr

    from headrace.service.settings import Settings
    from headrace.topics.client_kafka import KafkaClientSettings
    from headrace.topics.log import Log


def log_of(settings: Settings, *, owner: bool) -> Log:
    """The log, not yet open. `owner` matters to the embedded file only: it is made and locked for this process."""
    if settings.log.backend is Backend.EMBEDDED:
        from headrace.topics.log_embedded import EmbeddedLog  # noqa: PLC0415 - only what is chosen

        return EmbeddedLog(settings.log.path, owner=owner)
    from headrace.topics.log_kafka import KafkaLog  # noqa: PLC0415 - 100 ms that a reader of the embedded file need not pay

    return KafkaLog(kafka_client_settings(settings))


def session_ms(settings: Settings) -> float:
    """How long the group waits for a silent member. Infinite for the embedded file, which has one owner."""
    if settings.log.backend is Backend.EMBEDDED:
        return float("inf")
    from headrace.topics.client_kafka import resolved  # noqa: PLC0415 - as above

    return resolved(kafka_client_settings(settings))[0].session_timeout_ms


def kafka_client_settings(settings: Settings) -> KafkaClientSettings:
    """The `kafka` section in the client's words, with the limit that its decoders hold."""
    from headrace.topics.client_kafka import KafkaClientSettings  # noqa: PLC0415 - as above

    kafka = settings.kafka
    return KafkaClientSettings(
        bootstrap_servers=kafka.bootstrap_servers,
        security_protocol=kafka.security_protocol,
        sasl_mechanism=kafka.sasl_mechanism,
        sasl_username=kafka.sasl_username,
        sasl_password=_revealed(kafka.sasl_password),
        sasl_kerberos_service_name=kafka.sasl_kerberos_service_name,
        sasl_kerberos_domain_name=kafka.sasl_kerberos_domain_name,
        ssl_ca_file=kafka.ssl_ca_file,
        ssl_certificate_file=kafka.ssl_certificate_file,
        ssl_key_file=kafka.ssl_key_file,
        ssl_key_password=_revealed(kafka.ssl_key_password),
        ssl_check_hostname=kafka.ssl_check_hostname,
        client_id=kafka.client_id or settings.app.name,
        client_rack=kafka.client_rack,
        extra=kafka.extra,
        decompressed_batch_bytes_max=settings.limits.decompressed_batch_bytes,
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
