"""What is to be sent, when, and in whose name: plans are data, made before anything is sent."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from metering.errors import MeteringError
from streams.replay.traces import TraceRequest

TEXT_MODELS = frozenset({"tiny_llm", "embedder"})
DEFAULT_TENANTS = ("tenant-a", "tenant-b", "tenant-c")


class InvalidPlan(MeteringError):
    """A replay that can't be planned; the message names the option and its value."""


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Text in, text out; the server counts the tokens."""

    text: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token counts for a simulated model; ``input_tokens`` includes ``cached_input_tokens``."""

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class TextToEmbed:
    """Text in, a vector out."""

    text: str


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request; ``at_s`` counts from the start of the replay, in wall time.

    An empty ``team``, ``project`` or ``user`` is not sent. Requests of one ``at_s`` belong
    together: they are sent back to back, so that the server can batch them.
    """

    at_s: float
    model: str
    tenant: str
    team: str
    project: str
    user: str
    inputs: TextPrompt | TokenPrompt | TextToEmbed
    request_id: str
    retry_of: str | None
    phase: str


@dataclass(frozen=True, slots=True)
class TenantAssignment:
    """Whose a row is: the trace's own tenant, then ``by_client``, then one of ``tenants``.

    A client keeps one of ``tenants`` for ever (a checksum of its name); rows without a client
    take turns.
    """

    tenants: tuple[str, ...] = DEFAULT_TENANTS
    by_client: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def tenant_of(self, row: TraceRequest) -> str:
        if row.tenant is not None:
            return row.tenant
        if row.client is None:
            return self.tenants[(row.row - 1) % len(self.tenants)]
        if row.client in self.by_client:
            return self.by_client[row.client]
        return self.tenants[zlib.crc32(row.client.encode()) % len(self.tenants)]


def parse_tenants(text: str) -> TenantAssignment:
    """``client-1=acme,client-2=acme,globex,initech``: pairs, and names for everybody else.

    A line end separates as a comma does, and ``#`` begins a comment, so that the same text may
    be a file. Without a bare name, everybody else gets the default tenants.

    Raises:
        InvalidPlan: an entry without a tenant or a client, or a client named twice.
    """
    tenants: dict[str, None] = {}
    by_client: dict[str, str] = {}
    for line in text.splitlines():
        for entry in filter(None, (e.strip() for e in line.split("#")[0].split(","))):
            client, pair, tenant = (part.strip() for part in entry.rpartition("="))
            if not tenant or (pair and not client):
                raise InvalidPlan(f"tenants: {entry!r} is neither CLIENT=TENANT nor a tenant")
            if not pair:
                tenants[tenant] = None
            elif by_client.setdefault(client, tenant) != tenant:
                raise InvalidPlan(
                    f"tenants: {client!r} belongs to both {by_client[client]!r} and {tenant!r}"
                )
    return TenantAssignment(tuple(tenants) or DEFAULT_TENANTS, MappingProxyType(by_client))


def plan_replay(
    rows: Iterable[TraceRequest],
    *,
    speed: float,
    duration_s: float | None,
    tenants: TenantAssignment,
    model: str,
    phase: str = "replay",
    id_prefix: str = "replay",
) -> Iterator[PlannedRequest]:
    """Rows in order of time to requests, ``speed`` times as fast, until ``duration_s`` (wall time).

    A row that names its model goes there, any other to ``model``; its client becomes the user.
    The request's id is ``id_prefix`` and the row's number.

    Raises:
        InvalidPlan: at once for an option that makes no sense; while iterating for a row whose
            model takes text, which a trace of token counts doesn't have.
    """
    if not (math.isfinite(speed) and speed > 0):
        raise InvalidPlan(f"speed={speed}: must be above 0")
    if duration_s is not None and not duration_s > 0:
        raise InvalidPlan(f"duration_s={duration_s}: must be above 0")
    if not tenants.tenants:
        raise InvalidPlan("tenants: none are named")
    timed = ((row.at_s / speed, row) for row in rows)
    within = (
        timed
        if duration_s is None
        else itertools.takewhile(lambda at_s_and_row: at_s_and_row[0] < duration_s, timed)
    )
    return (
        PlannedRequest(
            at_s=at_s,
            model=_takes_tokens(row, model),
            tenant=tenants.tenant_of(row),
            team="",
            project="",
            user=row.client if row.client is not None else "",
            inputs=TokenPrompt(row.input_tokens, row.cached_input_tokens, row.output_tokens),
            request_id=f"{id_prefix}-{row.row}",
            retry_of=None,
            phase=phase,
        )
        for at_s, row in within
    )


def _takes_tokens(row: TraceRequest, default: str) -> str:
    model = row.model if row.model is not None else default
    if model in TEXT_MODELS:
        raise InvalidPlan(f"model={model!r} (row {row.row}): takes text, a trace has token counts")
    return model
