"""Families that no dashboard shows, each with the reason; a test holds this together with the table."""

from typing import Final

UNUSED: Final[dict[str, str]] = {
    "headrace_http_requests_total": "The panel follows.",
    "headrace_http_request_duration_seconds": "The panel follows.",
    "headrace_sse_clients": "The panel follows.",
}
