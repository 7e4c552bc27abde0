"""Ids as Kafka makes them."""

import base64
import uuid


def new_id() -> str:
    """A random one in the form of Kafka's Uuid: 16 bytes, base64url; a leading dash would look like an option."""
    text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return text if not text.startswith("-") else new_id()
