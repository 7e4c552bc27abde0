"""A built-in handler: one HTTP request, with what makes it safe to repeat.

    answer = await run.call(http_request, HttpRequest("POST", "https://billing.example/charges", json={"order": order.id}))

Each attempt sends `Idempotency-Key` (the task's, the same over attempts, restarts and owners), `traceparent` and `tracestate`. A status of 2xx, or one that
was expected, is a result. 408, 425, 429, 5xx and connections that fail are tried again as the handler's `Retry` says, not before `Retry-After`; any other
status is a failure that no further attempt changes. What goes wrong is told with method, scheme and host: a path or a query may be a secret.

The request lies in the run log. Secrets do not belong there: `headers_from_env` names environment variables, which are read at each attempt.

Importing this loads no HTTP library; the first request does. One session serves a process; `composition.py` closes it.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit

import msgspec

from headrace.handlers.attempt import current_attempt
from headrace.handlers.definition import Handler, HandlerPolicy
from headrace.topics.errors import Rejected, Transient

if TYPE_CHECKING:
    from types import ModuleType

    from aiohttp import ClientResponse, ClientSession

    from headrace.handlers.breaker import Breaker
    from headrace.handlers.duration import Duration
    from headrace.handlers.pool import Pool
    from headrace.handlers.rate_limit import RateLimit
    from headrace.handlers.retry import Retry

RESPONSE_BYTES_MAX: Final = 512 << 10  # the default: as Base64 it fits into a record of the run log
REDIRECTS_MAX: Final = 3
_CONNECT_S: Final = 10.0  # then it is a connection that failed; the attempt's own timeout is for all of it
_CONNECTIONS_MAX: Final = 512  # of a process; a handler's `Pool` is the way to have fewer
_RETRY_AFTER_MAX_S: Final = 86_400
_AGAIN: Final = frozenset({408, 425, 429})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SAFE: Final = frozenset({"GET", "HEAD"})
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class HttpRequest(msgspec.Struct, frozen=True):
    """What to send: to an absolute `http` or `https` URL, without a user or password. `json` is plain data and sent as such, `body` are bytes; at most one.

    `headers_from_env` gives headers the values of environment variables: `{"Authorization": "BILLING_TOKEN"}`. `expect` are statuses beside 2xx that are
    results. `response_bytes_max` bounds the body of the answer, in bytes (512 KiB unless said). Redirects are followed for GET and HEAD only, `redirects` of
    them at most (0: none); to another host without the headers given here. What cannot be sent fails the attempt for good (HR7106), not this constructor.
    """

    method: str
    url: str
    headers: dict[str, str] = {}
    json: Any = None
    body: bytes | None = None
    expect: tuple[int, ...] = ()
    headers_from_env: dict[str, str] = {}
    response_bytes_max: int = RESPONSE_BYTES_MAX
    redirects: int = REDIRECTS_MAX


class HttpResponse(msgspec.Struct, frozen=True):
    """What came back. Names of headers are in lower case; of several with one name the values are joined by commas. `body` are the bytes as they were sent, not
    unpacked; a HEAD has none.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    def text(self) -> str:
        """The body as UTF-8. UnicodeDecodeError if it is something else."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON. msgspec.DecodeError (a ValueError) if it is something else."""
        return msgspec.json.decode(self.body)


class HttpRefused(Rejected):
    """The answer's status says that another attempt would change nothing. `status` is it."""

    code = "HR7101"

    def __init__(self, message: str, *, status: int, do: str = "") -> None:
        super().__init__(message, do=do)
        self.status = status


class HttpUnavailable(Transient):
    """The answer's status says that it may work later."""

    code = "HR7102"

    def __init__(self, message: str, *, status: int, retry_after_ms: int | None) -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.status = status


class HttpUnreachable(Transient):
    """There was no whole answer: no name, no connection, or one that broke."""

    code = "HR7103"


class HttpTooLarge(Rejected):
    """The answer has more bytes than asked for."""

    code = "HR7104"


class HttpRedirectRefused(Rejected):
    """The answer leads elsewhere, once too often or where we do not go."""

    code = "HR7105"


class HttpRequestInvalid(Rejected):
    """This cannot be sent: a method, address or header that is none, or an environment variable that is not there."""

    code = "HR7106"


async def send(request: HttpRequest) -> HttpResponse:
    """Make the request, in the present attempt. Raises the errors above, which the guard and the handler's Retry judge."""
    aiohttp = _aiohttp()
    url = _address(request.url)
    what = f"{_method(request.method)} {_origin(url)}"
    headers, data = _headers(request), _body(request)
    left = request.redirects if request.method.upper() in _SAFE else 0
    while True:
        try:
            async with _session().request(
                request.method.upper(), url, headers=headers, data=data, allow_redirects=False
            ) as response:
                if response.status in _REDIRECTS and left and "location" in response.headers:
                    left -= 1
                    after = _redirected(url, response, what)
                    if _origin(after) != _origin(url):
                        headers = _ours()
                    url = after
                    continue
                return await _answer(request, response, what)
        except (aiohttp.InvalidURL, ValueError) as error:
            raise HttpRequestInvalid(
                f"{what} cannot be sent: {type(error).__name__}.", do="Correct the request."
            ) from None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            # of the library's: `from None`, for its text and its notes may have the whole address
            raise HttpUnreachable(f"{what} got no whole answer: {type(error).__name__}.") from None


def http_handler(
    name: str,
    /,
    *,
    timeout: Duration | None = None,
    retry: Retry | None = None,
    breaker: Breaker | None = None,
    pool: Pool | None = None,
    rate_limit: RateLimit | None = None,
) -> Handler[HttpRequest, HttpResponse]:
    """A handler like `http_request` with a name and policies of its own: one for each service that is called, say.

    It takes an `HttpRequest` and returns an `HttpResponse`. `timeout` is for one attempt, redirects and body included; None, as for `retry`: the settings
    `defaults.*`. Statuses 408, 425, 429 and 5xx (HR7102) and broken connections (HR7103) are tried again, not before `Retry-After` (RFC 9110, at most a day);
    everything else fails for good: another status (HR7101), too large an answer (HR7104), a redirect that is not followed (HR7105), a request that cannot be
    sent (HR7106). DefinitionError: the name or a policy must be changed.
    """
    policy = HandlerPolicy(name=name, timeout=timeout, retry=retry, breaker=breaker, pool=pool, rate_limit=rate_limit)
    return Handler[HttpRequest, HttpResponse](send, policy)


http_request: Final = http_handler("http_request")
"""Makes one HTTP request, by the default policies; see `http_handler`."""


# --- the request ------------------------------------------------------------------------------------------------------


def _method(method: str) -> str:
    if not method or not set(method) <= _TOKEN:
        raise HttpRequestInvalid(f"{method!r:.40} is no HTTP method.", do="Write GET, POST, PUT, PATCH or DELETE, say.")
    return method.upper()


def _address(text: str) -> str:
    if _is_address(text, ("http", "https")):
        return text
    raise HttpRequestInvalid(
        "The address of a request is no http or https URL with a host, or has a password in it.",
        why="It lies in the run log, for everybody who may read that.",
        do="Write https://host/path; give secrets by headers_from_env.",
    )


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        sound = parts.scheme in schemes and bool(parts.hostname) and "@" not in parts.netloc
        return sound and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _origin(url: str) -> str:
    """Scheme, host and port: what a message may say, and what headers are for."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _ours() -> dict[str, str]:
    """What each request has, whatever it was given. Nothing is asked to be packed: a small answer could unpack to a huge one."""
    attempt = current_attempt()
    headers = {"Accept-Encoding": "identity", "Idempotency-Key": attempt.idempotency_key}
    if attempt.traceparent is not None:
        headers["traceparent"] = attempt.traceparent
        if attempt.tracestate:
            headers["tracestate"] = attempt.tracestate
    return headers


def _headers(request: HttpRequest) -> dict[str, str]:
    given = dict(request.headers)
    for name, variable in request.headers_from_env.items():
        value = os.environ.get(variable)
        if value is None:
            raise HttpRequestInvalid(
                f"The environment variable {variable} for the header {name} is not set.",
                do="Set it for every process of the app.",
            )
        given[name] = value.strip()
    for name, value in given.items():
        if not name or not set(name) <= _TOKEN or any(char in value for char in "\r\n\0"):
            raise HttpRequestInvalid(f"The header {name!r:.60} cannot be sent.", do="Give it one line of text.")
    if request.json is not None and not any(name.lower() == "content-type" for name in given):
        given["Content-Type"] = "application/json"
    lower = {name.lower() for name in given}
    return {name: value for name, value in _ours().items() if name.lower() not in lower} | given


def _body(request: HttpRequest) -> bytes | None:
    if request.json is None:
        return request.body
    if request.body is not None:
        raise HttpRequestInvalid("A request has json and body.", do="Give one of them.")
    return msgspec.json.encode(request.json)


def _redirected(url: str, response: ClientResponse, what: str) -> str:
    """Where the answer leads. Never from https to http, nor to anything else."""
    try:
        after = urljoin(url, response.headers["location"])
    except ValueError:
        after = ""
    if _is_address(after, ("https",) if url.lower().startswith("https:") else ("http", "https")):
        return after
    raise HttpRedirectRefused(
        f"{what} leads to where no request goes: to no http or https URL, or from https to http.",
        do="Call the right address, or have its owner mend it.",
    )


# --- the answer -------------------------------------------------------------------------------------------------------


async def _answer(request: HttpRequest, response: ClientResponse, what: str) -> HttpResponse:
    status = response.status
    if 200 <= status < 300 or status in request.expect:
        return HttpResponse(status, _joined(response), await _read(request, response, what))
    if status in _AGAIN or status >= 500:
        wait_ms = _retry_after_ms(response.headers.get("retry-after", ""))
        raise HttpUnavailable(f"{what} answered {status}.", status=status, retry_after_ms=wait_ms)
    if status in _REDIRECTS:
        raise HttpRedirectRefused(
            f"{what} answered {status}: it leads elsewhere.",
            why=f"Redirects are followed for GET and HEAD, {request.redirects} of them at most.",
            do=f"Call the right address, allow more, or have expect=({status},).",
        )
    do = f"Correct the request; with expect=({status},) it is a result."
    raise HttpRefused(f"{what} answered {status}.", status=status, do=do)


async def _read(request: HttpRequest, response: ClientResponse, what: str) -> bytes:
    limit = request.response_bytes_max
    body = bytearray()
    if (response.content_length or 0) <= limit or request.method.upper() == "HEAD":
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > limit:
                break
        else:
            return bytes(body)
    response.close()  # what is left of it is not wanted
    raise HttpTooLarge(
        f"{what} answered with more than {limit} bytes.",
        do="Ask for less, or raise response_bytes_max; a result must fit into limits.payload as Base64.",
    )


def _joined(response: ClientResponse) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in response.headers.items():
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


def _retry_after_ms(text: str) -> int | None:
    """Seconds, or an HTTP date; None if it is neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), _RETRY_AFTER_MAX_S) * 1000
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - seldom needed, and not small

    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return round(min(max(seconds, 0.0), _RETRY_AFTER_MAX_S) * 1000)


# --- the session ------------------------------------------------------------------------------------------------------

_sessions: Final[dict[asyncio.AbstractEventLoop, ClientSession]] = {}


def _session() -> ClientSession:
    """That of the loop: made for the first request."""
    loop = asyncio.get_running_loop()
    session = _sessions.get(loop)
    if session is None:
        aiohttp = _aiohttp()
        session = _sessions[loop] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=True,
        )
    return session


async def close_session() -> None:
    """Close the loop's session, if any request was made."""
    session = _sessions.pop(asyncio.get_running_loop(), None)
    if session is not None:
        await session.close()


def _aiohttp() -> ModuleType:
    import aiohttp  # noqa: PLC0415 - half a second that no other app pays

    return aiohttp
