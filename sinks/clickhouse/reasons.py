"""Why ClickHouse did not answer, without the insides of the HTTP client."""

from __future__ import annotations

from http.client import RemoteDisconnected

MOST_CHARACTERS = 1_000
_HTTP_CLIENTS = ("HTTPConnectionPool", "HTTPSConnectionPool", "HTTPConnection(", "urllib3")


def reason_of(exc: BaseException) -> str:
    """What the operating system or the server has said. The driver's own text quotes the request,
    with ids that differ at each attempt, and the representations of Python objects."""
    chain = list(_chain(exc))
    for cause in reversed(chain):
        if isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__:
            return "no answer in time"
        if isinstance(cause, RemoteDisconnected):
            return "the connection was closed without an answer"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[:1].lower() + cause.strerror[1:]
    said = str(exc).strip()
    if any(name in said for name in _HTTP_CLIENTS):
        return f"the connection failed ({type(chain[-1]).__name__})"
    return said[:MOST_CHARACTERS]


def _chain(exc: BaseException | None) -> list[BaseException]:
    """The error, and what it came from; ``reason`` is where urllib3 keeps it."""
    found: list[BaseException] = []
    waiting = [exc]
    while waiting:
        at = waiting.pop(0)
        if not isinstance(at, BaseException) or at in found:
            continue
        found.append(at)
        inner = [arg for arg in at.args if isinstance(arg, BaseException)]
        waiting += [at.__cause__, at.__context__, getattr(at, "reason", None), *inner]
    return found
