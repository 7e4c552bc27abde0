"""Source records as any producer would write them."""

import json

from headrace.topics.log import NewRecord


def event(type_: str, data: object, *, key: bytes | None = None, id_: str = "1") -> NewRecord:
    """A CloudEvent in binary mode."""
    headers = {"ce_specversion": "1.0", "ce_id": id_, "ce_source": "/tests", "ce_type": type_}
    return NewRecord(
        key=key,
        value=json.dumps(data).encode(),
        headers=tuple((name, value.encode()) for name, value in headers.items()),
    )
