"""Whatever bytes come, the stream's decision never raises, and each message has one fate."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.fuzz.batches import PRICES, Batch, Part, event, record
from benchmarks.fuzz.generator import messages
from benchmarks.fuzz.kinds import Fate
from metering.cloudevents import USAGE_BATCH_TYPE
from metering.errors import UnreadableUsage
from metering.ledger import Decision, Ledger, Policy, take
from metering.ledger_records import changed_records, ledger_of
from metering.messages import Message
from metering.prices import parse_price_book
from metering.usage import UsageBatch

NS = 10**9
NOON_NS = 1_780_000_000 * NS
BOOK = parse_price_book(PRICES, "book")
POLICY = Policy()
REASONS = frozenset(f for f in Fate if f.is_refused)
SOUND = Batch("s", 7, "m", NOON_NS, (Part("acme", 5, 6, 900), Part("b", 0, 0, 900)))
DOCUMENTS = [json.loads(event(SOUND)), json.loads(record(SOUND))]
FIELDS = sorted(
    {name for document in DOCUMENTS for name in document} | set(DOCUMENTS[0]["requests"][0])
)
odd_numbers = st.sampled_from(
    [0, 1, -1, 2**31, 2**53 - 1, 2**53, 2**63 - 1, 2**64, 10**400, 0.5, 1e308, float("inf")]
) | st.sampled_from([float("nan"), -0.0, True, False, None])
values = st.recursive(
    odd_numbers | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["ok", "1"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def twisted(draw: st.DrawFn) -> bytes:
    """A sound event or record in which one place, or some, has another value, or none."""
    document = json.loads(json.dumps(draw(st.sampled_from(DOCUMENTS))))
    for _ in range(draw(st.integers(1, 3))):
        at: Any = document
        while True:
            key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            inner = at[key]
            if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
                break
            at = inner
        if isinstance(at, dict) and draw(st.booleans()) and draw(st.booleans()):
            del at[key]
        else:
            at[key] = draw(values)
        if not document:
            break
    return json.dumps(document, separators=(",", ":")).encode()


@st.composite
def cut_and_pasted(draw: st.DrawFn) -> bytes:
    """Bytes of sound ones, with some of them replaced by any others."""
    value = draw(st.sampled_from([event(SOUND), record(SOUND)]))
    first, last = sorted(draw(st.tuples(*[st.integers(0, len(value))] * 2)))
    return value[:first] + draw(st.binary(max_size=8)) + value[last:]


bodies = (
    st.binary(max_size=200)
    | values.map(lambda value: json.dumps(value).encode())
    | st.sampled_from([event(SOUND), record(SOUND)])
    | twisted()
    | cut_and_pasted()
)
headers = st.lists(
    st.tuples(
        st.sampled_from(["ce_type", "ce_specversion", "ce_id", ""]) | st.text(max_size=5),
        st.sampled_from([USAGE_BATCH_TYPE.encode(), b"1.0", b""]) | st.binary(max_size=5),
    ),
    max_size=3,
)
right = st.just([("ce_type", USAGE_BATCH_TYPE.encode()), ("ce_specversion", b"1.0")])


def fate_of(decision: Decision) -> str:
    """Checks that there is exactly one. "late" is a batch that was counted and is told of."""
    refused = [r for r in decision.refusals if r.reason != Fate.LATE]
    assert len(refused) + decision.duplicates + decision.batches == 1
    assert len(decision.refusals) <= 1
    assert bool(decision.lines.count) == bool(decision.batches)
    assert all(0 < len(r.detail) <= UnreadableUsage.MOST_DETAIL for r in decision.refusals)
    assert {r.reason for r in decision.refusals} <= REASONS
    if decision.refusals:
        return decision.refusals[0].reason
    return Fate.DUPLICATE if decision.duplicates else Fate.STORED


@given(st.lists(st.tuples(bodies, right | headers), min_size=1, max_size=5))
@example([(event(SOUND), []), (record(SOUND), [])])
def test_whatever_comes_is_refused_or_a_duplicate_or_counted(
    arrivals: list[tuple[bytes, list[tuple[str, bytes]]]],
) -> None:
    given_messages = [
        Message(n, NOON_NS, value, tuple(own)) for n, (value, own) in enumerate(arrivals)
    ]
    ledger, fates = Ledger(), []
    for message in given_messages:
        fates.append(fate_of(take(ledger, [message], BOOK, POLICY, NOON_NS)))
        assert ledger.counted_to == message.offset
    at_once = Ledger()
    decision = take(at_once, given_messages, BOOK, POLICY, NOON_NS)
    assert at_once.counted_to == ledger.counted_to
    assert {n: s.seen for n, s in at_once.sources.items()} == {
        n: s.seen for n, s in ledger.sources.items()
    }
    saved = {key: value for key, value in changed_records(at_once) if value is not None}
    assert ledger_of(saved) == at_once
    assert decision.batches == sum(f in (Fate.STORED, Fate.LATE) for f in fates)
    assert decision.duplicates == fates.count(Fate.DUPLICATE)
    assert [r.reason for r in decision.refusals] == [f for f in fates if Fate(f).is_refused]


def test_what_was_refused_is_not_in_the_way_of_what_comes_under_its_identity(
    batch_of: Callable[..., UsageBatch],
) -> None:
    sound = batch_of().model_dump_json().encode()
    ledger = Ledger()
    for offset, value in enumerate((sound[:-1], sound.replace(b"acme", b""))):
        take(ledger, [Message(offset, NOON_NS, value)], BOOK, POLICY, NOON_NS)
    assert fate_of(take(ledger, [Message(9, NOON_NS, sound)], BOOK, POLICY, NOON_NS)) == "stored"


def test_each_hostile_kind_has_the_fate_that_it_names() -> None:
    ledger, wrong = Ledger(), {}
    for offset, (kind, made) in enumerate(messages(9_600, 3, time.time_ns)):
        own = tuple((name, value or b"") for name, value in made.headers)
        message = Message(offset, time.time_ns(), made.value or b"", own)
        fate = fate_of(take(ledger, [message], BOOK, POLICY, time.time_ns()))
        if fate != kind.fate:
            wrong[kind.name] = (fate, kind.fate, (made.value or b"")[:500])
    assert wrong == {}
