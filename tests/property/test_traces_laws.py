"""Laws of reading traces, on drawn ones."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import InvalidTrace
from streams.replay.plan import TenantAssignment, TokenPrompt, plan_replay
from streams.replay.traces import TRACE_FORMATS, TraceFormat, TraceRequest, read_trace

tokens = st.integers(1, 200_000)
names = st.text("abc=,;é☃ 0", min_size=1, max_size=8)


@st.composite
def requests(draw: st.DrawFn) -> list[TraceRequest]:
    """Rows in order of time from 0, times in milliseconds."""
    times_ms = sorted(draw(st.lists(st.integers(0, 10**7), max_size=30)))
    first_ms = times_ms[0] if times_ms else 0
    rows = []
    for row, at_ms in enumerate(times_ms, 1):
        input_tokens = draw(tokens)
        rows.append(
            TraceRequest(
                at_s=(at_ms - first_ms) / 1000,
                input_tokens=input_tokens,
                cached_input_tokens=draw(st.integers(0, input_tokens)),
                output_tokens=draw(st.integers(0, 5000)),
                client=draw(st.none() | names),
                row=row,
                tenant=draw(st.none() | names),
                model=draw(st.none() | st.sampled_from(["llama_8b_sim", "llama_70b_sim"])),
            )
        )
    return rows


def _read(content: bytes, format: TraceFormat) -> list[TraceRequest]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace"
        path.write_bytes(content)
        return list(read_trace(path, format))


@given(requests(), st.booleans(), st.integers(0, 10**6))
def test_what_is_written_in_our_format_is_read_back(
    rows: list[TraceRequest], zipped: bool, start_s: int
) -> None:
    lines = []
    for row in rows:
        fields: dict[str, object] = {
            "at_s": (start_s * 1000 + round(row.at_s * 1000)) / 1000,
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "cached_input_tokens": row.cached_input_tokens,
        }
        optional = {"client": row.client, "tenant": row.tenant, "model": row.model}
        fields |= {name: value for name, value in optional.items() if value is not None}
        lines.append(json.dumps(fields) + "\n")
    content = "".join(lines).encode()
    assert _read(gzip.compress(content) if zipped else content, "jsonl") == rows


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=20))
def test_azure_times_are_exact_to_a_hundred_nanoseconds(ticks: list[int]) -> None:
    ticks.sort()
    start = datetime(2023, 11, 16, 18, 17, 3, tzinfo=UTC)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for tick in ticks:
        second = start + timedelta(seconds=tick // 10**7)
        lines.append(f"{second:%Y-%m-%d %H:%M:%S}.{tick % 10**7:07},1,1")
    read = _read("\n".join(lines).encode(), "azure")
    assert [r.at_s for r in read] == [(tick - ticks[0]) / 10**7 for tick in ticks]


@given(st.lists(st.tuples(tokens, st.lists(st.integers(0, 2), max_size=6)), max_size=25))
def test_mooncake_caches_the_longest_prefix_that_any_earlier_row_had(
    drawn: list[tuple[int, list[int]]],
) -> None:
    content = "".join(
        json.dumps({"timestamp": at, "input_length": n, "output_length": 1, "hash_ids": ids}) + "\n"
        for at, (n, ids) in enumerate(drawn)
    ).encode()
    for row, ((input_tokens, ids), earlier) in zip(
        _read(content, "mooncake"),
        ((item, drawn[:i]) for i, item in enumerate(drawn)),
        strict=True,
    ):
        shared = max(
            (
                sum(1 for _ in itertools.takewhile(lambda ab: ab[0] == ab[1], zip(ids, other)))  # noqa: B905 - prefixes differ in length
                for _, other in earlier
            ),
            default=0,
        )
        assert row.cached_input_tokens == min(512 * shared, input_tokens - 1)


@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode), st.data())
def test_whatever_a_file_holds_it_is_rows_or_an_invalid_trace(
    content: bytes, data: st.DataObject
) -> None:
    format = data.draw(st.sampled_from(TRACE_FORMATS))
    header = data.draw(
        st.sampled_from(
            [
                b"",
                b"\x1f\x8b",
                b"TIMESTAMP,ContextTokens,GeneratedTokens\n",
                b"t_s,client,input_tokens,output_tokens\n",
                b"client,prompt_len,output_len,req_time\n",
            ]
        )
    )
    try:
        rows = _read(header + content, format)
    except InvalidTrace:
        return
    assert all(r.input_tokens >= 1 and math.isfinite(r.at_s) for r in rows)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from(["at_s", "input_tokens", "output_tokens", "cached_input_tokens", "tenant"]),
    _JSON,
)
def test_a_wrong_value_in_a_field_is_refused_by_that_field(field: str, value: object) -> None:
    fields = {"at_s": 0, "input_tokens": 2**31 - 1, "output_tokens": 1} | {field: value}
    content = json.dumps(fields).encode()
    if field == "tenant":
        fits = isinstance(value, str) and value != "" and value.isprintable()
    elif isinstance(value, bool) or not isinstance(value, int | float):
        fits = False
    elif field == "at_s":
        fits = abs(value) <= 10**15  # of nan, this is false
    else:
        least = 1 if field == "input_tokens" else 0
        fits = isinstance(value, int) and least <= value < 2**31
    if fits:
        assert len(_read(content, "jsonl")) == 1
    else:
        with pytest.raises(InvalidTrace, match=rf"row 1 \(line 1\): {field} is "):
            _read(content, "jsonl")


@given(
    requests(),
    st.floats(0.01, 1000),
    st.none() | st.floats(0.001, 10_000),
    st.lists(names, min_size=1, max_size=4, unique=True),
)
def test_a_plan_is_the_rows_before_the_end_at_their_times_over_the_speed(
    rows: list[TraceRequest], speed: float, duration_s: float | None, tenants: list[str]
) -> None:
    planned = list(
        plan_replay(
            rows,
            speed=speed,
            duration_s=duration_s,
            tenants=TenantAssignment(tuple(tenants)),
            model="llama_8b_sim",
        )
    )
    kept = [r for r in rows if duration_s is None or r.at_s / speed < duration_s]
    assert [p.at_s for p in planned] == [r.at_s / speed for r in kept]
    assert [p.inputs for p in planned] == [
        TokenPrompt(r.input_tokens, r.cached_input_tokens, r.output_tokens) for r in kept
    ]
    assert len({p.request_id for p in planned}) == len(planned)
    for row, request in zip(kept, planned, strict=True):
        assert request.tenant == row.tenant or (row.tenant is None and request.tenant in tenants)


@given(requests(), st.lists(names, min_size=1, max_size=4, unique=True))
def test_a_client_has_one_tenant_for_ever(rows: list[TraceRequest], tenants: list[str]) -> None:
    assignment = TenantAssignment(tuple(tenants))
    pairs = {
        (r.client, assignment.tenant_of(r))
        for r in rows
        if r.client is not None and r.tenant is None
    }
    assert len(pairs) == len({client for client, _ in pairs})
