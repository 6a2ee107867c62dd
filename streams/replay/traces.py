"""Public traces of LLM traffic, each format to the same rows.

``azure``
    CSV ``TIMESTAMP,ContextTokens,GeneratedTokens`` (Azure's LLM inference traces).
``mooncake``
    JSON Lines ``timestamp`` (ms), ``input_length``, ``output_length``, ``hash_ids``.
``servegen``
    CSV ``t_s,client,input_tokens,output_tokens``; with images
    ``t_s,client,text_tokens,image_count,output_tokens``.
``vtc``
    CSV ``client,prompt_len,output_len,req_time`` (seconds), among others (VTC's artifact).
``jsonl``
    The project's own, see ``_own``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal, get_args

from streams.replay.trace_rows import MAX_TOKENS, Row, csv_rows, json_rows

TraceFormat = Literal["azure", "mooncake", "servegen", "vtc", "jsonl"]
TRACE_FORMATS: tuple[TraceFormat, ...] = get_args(TraceFormat)

MOONCAKE_BLOCK_TOKENS = 512
TOKENS_PER_IMAGE = 576
"""LLaVA-1.5's: 24 × 24 patches. The trace has the number of images, not their size."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace. ``at_s`` counts from the first row; ``row`` counts rows from 1.

    ``input_tokens`` includes ``cached_input_tokens``. ``tenant`` and ``model`` are known only
    where the trace says so.
    """

    at_s: float
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    client: str | None
    row: int
    tenant: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class _Parsed:
    seconds: Decimal
    time_field: str
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    client: str | None = None
    tenant: str | None = None
    model: str | None = None


def read_trace(path: Path, format: TraceFormat) -> Iterator[TraceRequest]:
    """Read a trace, plain or gzipped, row by row, in the file's order.

    Raises:
        InvalidTrace: while iterating, at the first row that can't be read or lies before the
            row above it; the message names the file, the row, the field and its value.
    """
    rows, parse = _READERS[format]()
    first = latest = None
    for row in rows(path):
        parsed = parse(row)
        if first is None or latest is None:
            first = latest = parsed.seconds
        if parsed.seconds < latest:
            row.refuse(parsed.time_field, "before the row above; sort the trace by time")
        latest = parsed.seconds
        yield TraceRequest(
            at_s=float(parsed.seconds - first),
            input_tokens=parsed.input_tokens,
            cached_input_tokens=parsed.cached_input_tokens,
            output_tokens=parsed.output_tokens,
            client=parsed.client,
            row=row.number,
            tenant=parsed.tenant,
            model=parsed.model,
        )


def _azure(row: Row) -> _Parsed:
    return _Parsed(
        seconds=row.epoch_seconds("TIMESTAMP"),
        time_field="TIMESTAMP",
        input_tokens=row.tokens("ContextTokens", least=1),
        output_tokens=row.tokens("GeneratedTokens"),
    )


def _servegen(row: Row) -> _Parsed:
    if "text_tokens" in row.fields:
        images = row.tokens("image_count")
        input_tokens = row.tokens("text_tokens", least=1) + images * TOKENS_PER_IMAGE
        if input_tokens > MAX_TOKENS:
            row.refuse("image_count", f"{TOKENS_PER_IMAGE} tokens each are more than {MAX_TOKENS}")
    else:
        input_tokens = row.tokens("input_tokens", least=1)
    return _Parsed(
        seconds=row.number_of("t_s"),
        time_field="t_s",
        input_tokens=input_tokens,
        output_tokens=row.tokens("output_tokens"),
        client=row.text("client"),
    )


def _vtc(row: Row) -> _Parsed:
    return _Parsed(
        seconds=row.number_of("req_time"),
        time_field="req_time",
        input_tokens=row.tokens("prompt_len", least=1),
        output_tokens=row.tokens("output_len"),
        client=row.text("client"),
    )


class _Mooncake:
    """Remembers every prefix of blocks that the trace has shown so far, as a trie.

    ``hash_ids`` has one id per block of 512 tokens; what a request shares with an earlier one
    is taken as cached (a cache that never evicts), except for the last token, which a server
    must compute to begin its answer.
    """

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._children: dict[tuple[int, int], int] = {}

    def __call__(self, row: Row) -> _Parsed:
        input_tokens = row.tokens("input_length", least=1)
        seen = self._shared_blocks(row.ids("hash_ids"))
        return _Parsed(
            seconds=row.number_of("timestamp") / 1000,
            time_field="timestamp",
            input_tokens=input_tokens,
            output_tokens=row.tokens("output_length"),
            cached_input_tokens=min(seen * MOONCAKE_BLOCK_TOKENS, input_tokens - 1),
        )

    def _shared_blocks(self, blocks: list[int]) -> int:
        node, shared = 0, 0
        for depth, block in enumerate(blocks):
            child = self._children.get((node, block))
            if child is None:
                child = self._children[node, block] = next(self._ids)
            else:
                shared = depth + 1
            node = child
        return shared


_OWN_FIELDS = frozenset(
    (
        "at_s",
        "input_tokens",
        "output_tokens",
        "cached_input_tokens",
        "client",
        "tenant",
        "model",
    )
)


def _own(row: Row) -> _Parsed:
    """``{"at_s": 0.5, "input_tokens": 400, "output_tokens": 60}``, one object a line.

    Optional: ``cached_input_tokens`` (a part of ``input_tokens``), ``client``, ``tenant``,
    ``model``. Other fields are refused, so that a misspelt one isn't lost.
    """
    for field in row.fields:
        if field not in _OWN_FIELDS:
            row.refuse(field, f"unknown; the fields are {', '.join(sorted(_OWN_FIELDS))}")
    input_tokens = row.tokens("input_tokens", least=1)
    cached = row.tokens("cached_input_tokens") if "cached_input_tokens" in row.fields else 0
    if cached > input_tokens:
        row.refuse("cached_input_tokens", f"more than input_tokens={input_tokens}")
    return _Parsed(
        seconds=row.number_of("at_s"),
        time_field="at_s",
        input_tokens=input_tokens,
        output_tokens=row.tokens("output_tokens"),
        cached_input_tokens=cached,
        client=row.text("client") if "client" in row.fields else None,
        tenant=row.text("tenant") if "tenant" in row.fields else None,
        model=row.text("model") if "model" in row.fields else None,
    )


_Rows = Callable[[Path], Iterator[Row]]
_Parse = Callable[[Row], _Parsed]
_READERS: dict[TraceFormat, Callable[[], tuple[_Rows, _Parse]]] = {
    "azure": lambda: (csv_rows, _azure),
    "mooncake": lambda: (json_rows, _Mooncake()),
    "servegen": lambda: (csv_rows, _servegen),
    "vtc": lambda: (csv_rows, _vtc),
    "jsonl": lambda: (json_rows, _own),
}
