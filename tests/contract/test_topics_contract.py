"""The topics as others see them: the document, the last release, and what is really published."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # has no stubs
import pytest

from metering.capacity import (
    BatchStats,
    CapacityHeartbeat,
    DeviceCapacity,
    Failures,
    InstanceCapacity,
    ModelCounters,
)
from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.costs import Anomaly, CauseTag
from metering.ledger import Refusal
from metering.lines import CostLines
from metering.messages import Message as LedgerMessage
from metering.prices import parse_price_book
from metering.pricing import price_batch
from metering.reconciliation import Bounds, Snapshot, judge
from metering.usage import UsageBatch
from metering.usage_columns import encode_columns
from metering.window_rows import WindowRows
from metering.windows import WindowState, close, count
from streams.cli.topics import as_text
from streams.contract.asyncapi import asyncapi_document
from streams.contract.compatibility import topic_breaks
from streams.contract.messages import MESSAGES
from streams.contract.schemas import topic_schemas
from streams.publisher import (
    Record,
    anomaly_record,
    heartbeat_record,
    lines_records,
    refusal_record,
    verdict_record,
    window_records,
)
from streams.topics import TOPICS, USAGE_BATCHES, USAGE_DLQ

REPO = Path(__file__).parents[2]
DOCS = REPO / "docs"
RELEASED: dict[str, Any] = json.loads((DOCS / "schemas" / "released.json").read_text())
OFFICIAL = json.loads((Path(__file__).parent / "asyncapi" / "3.0.0.json").read_text())
DOCUMENT = asyncapi_document()
NOON_NS = 1_780_000_000 * 10**9
MakeBatch = Callable[..., UsageBatch]

# --- the document --------------------------------------------------------------------------------


def test_the_committed_document_is_the_one_that_is_made() -> None:
    """`make contract` writes it."""
    assert (DOCS / "asyncapi.json").read_text() == as_text(DOCUMENT)


def official() -> Any:
    # It names its dialect without the #, which the library does not know.
    return jsonschema.Draft7Validator(OFFICIAL)


def test_the_document_is_what_asyncapis_own_schema_asks_for() -> None:
    official().validate(json.loads(as_text(DOCUMENT)))


@pytest.mark.parametrize(
    ("way", "value"),
    [
        (("channels", "cost.windows.v1", "bindings", "kafka", "partitions"), 0),
        (("channels", "cost.windows.v1", "messages", "windowRow"), "windowRow"),
        (("operations", "send.windowRow", "action"), "publish"),
        (("components", "messages", "windowRow", "payload"), 5),
        (("components", "schemas", "UsageBatch-Input", "properties", "rows"), {"type": "count"}),
        (("asyncapi",), "2.6.0"),
    ],
)
def test_asyncapis_own_schema_refuses_a_document_that_is_wrong(
    way: tuple[str, ...], value: object
) -> None:
    wrong = copy.deepcopy(DOCUMENT)
    at: Any = wrong
    for step in way[:-1]:
        at = at[step]
    at[way[-1]] = value
    assert not official().is_valid(wrong)


def test_every_reference_leads_somewhere() -> None:
    for reference in re.findall(r'"\$ref": "([^"]+)"', as_text(DOCUMENT)):
        at: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]
        assert isinstance(at, dict), reference


def test_every_topic_has_one_message_and_every_schema_is_sound() -> None:
    assert sorted(m.topic for m in MESSAGES) == sorted(t.name for t in TOPICS if not t.is_internal)
    assert len({m.event_type for m in MESSAGES}) == len({m.name for m in MESSAGES}) == len(MESSAGES)
    for described in topic_schemas().values():
        for part in ("payload", "headers", "key"):
            if described[part] is not None:
                jsonschema.Draft202012Validator.check_schema(described[part])


# --- the last release ----------------------------------------------------------------------------


def test_nobody_who_reads_or_writes_as_of_the_last_release_is_broken() -> None:
    """What must break gets a new version of its topic beside the old one: docs/topics.md."""
    assert [str(b) for b in topic_breaks(RELEASED, topic_schemas())] == []


@pytest.mark.parametrize("topic", [m.topic for m in MESSAGES if m.payload is not None])
def test_the_check_would_see_a_field_that_is_gone_from_any_topic(topic: str) -> None:
    now = copy.deepcopy(topic_schemas())
    properties = forms(now[topic]["payload"])[0]
    field = next(iter(properties))
    del properties[field]
    assert any(b.path.startswith(f"{topic} payload $") for b in topic_breaks(RELEASED, now))


def forms(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """The properties of an event, in each of the forms that it can have."""
    if "properties" in payload:
        return [payload["properties"]]
    names = [form["$ref"].removeprefix("#/$defs/") for form in payload["anyOf"]]
    return [payload["$defs"][name]["properties"] for name in names]


# --- what is published ---------------------------------------------------------------------------


def published(batch_of: MakeBatch) -> list[Record]:
    """One of each topic and more, by the publisher's own functions."""
    book = parse_price_book(
        '[[gpu_hour]]\nid = "p"\naccelerator = "cpu"\nregion = "*"\n'
        'usd_per_gpu_hour = "0.0000001"\neffective_from = 2020-01-01T00:00:00Z\n',
        "book",
    )
    batches = [batch_of(0, requests=[{"tenant": "a/b"}, {}]), batch_of(1, accelerator="unpriced")]
    lines = [line for batch in batches for line in price_batch(batch, book)]
    state = WindowState()
    count(state, lines, 0, retention_ns=10**12)
    rows = close(state, 0, provisional=True) + close(state, NOON_NS + 10**12, provisional=True)
    counters = ModelCounters(
        model="m", version="1", successes=1, failures=Failures(), cache_hits=0, cache_misses=0,
        queue_ns=1, batch_stats=(BatchStats(size=1, executions=1, compute_infer_ns=5),),
    )  # fmt: skip
    beat = CapacityHeartbeat(
        source="s", sequence=0, host="h", boot_id="b", time_ns=NOON_NS, asked_ns=NOON_NS,
        triton_answers=True, models=(counters,),
        devices=(DeviceCapacity(device="0", accelerator="cpu", boot="b", wall_ns=2, busy_ns=1,
                                idle_ns=1, running=0),),
        instances=(InstanceCapacity(source="s", model="m", device="0", wall_ns=2, busy_ns=1,
                                    batch_ns=1, idle_ns=1, executions=1),),
    )  # fmt: skip
    snapshot = Snapshot(host="h", boot_id="b", time_ns=NOON_NS, asked_ns=NOON_NS)
    cause = CauseTag(
        driver="volume", slice={"tenant": "a"}, share=1.0, usd_per_hour=Decimal("1E-9"),
        confidence=0.5, lever="l",
    )  # fmt: skip
    anomaly = Anomaly(
        anomaly_id="x", window_start_ms=NOON_NS // 10**6, window_seconds=10, tenant="a", model="m",
        score=1.0, score_unit="sigma", threshold=3.0, expected_usd=Decimal(0),
        observed_usd=Decimal(1), usd_per_hour=Decimal(360), causes=(cause,),
    )  # fmt: skip
    headers = tuple(encode_headers(USAGE_BATCH_TYPE, "s", "1", None))
    refused = LedgerMessage(offset=3, appended_ns=NOON_NS, value=b"\xff", headers=headers)
    batch = batches[0]
    return [
        Record(
            USAGE_BATCHES,
            batch.source.encode(),
            batch.model_dump_json().encode(),
            encode_headers(USAGE_BATCH_TYPE, batch.source, str(batch.sequence), None),
        ),
        Record(
            USAGE_BATCHES,
            batch.source.encode(),
            encode_columns(batch),
            encode_headers(USAGE_BATCH_TYPE, batch.source, str(batch.sequence), None),
        ),
        *lines_records(CostLines.of(lines), 0, (0, 1)),
        *window_records(WindowRows.of(rows)),
        heartbeat_record(beat),
        verdict_record(judge(snapshot, counters, Bounds())),
        anomaly_record(anomaly),
        refusal_record(Refusal(refused, "malformed", "detail"), 0),
    ]


def test_what_is_published_is_what_the_contract_says(batch_of: MakeBatch) -> None:
    described = topic_schemas()
    records = published(batch_of)
    assert {r.topic for r in records} == {t.name for t in TOPICS if not t.is_internal}
    for record in records:
        own = described[record.topic]
        headers = {name: value.decode() for name, value in record.headers}
        validator = jsonschema.Draft202012Validator(own["headers"])
        validator.validate(headers)
        allowed = own["headers"]["properties"].keys()
        assert all(n in allowed or n.startswith("original_") for n in headers)
        if own["key"] is None:
            assert record.key == b""
        else:
            jsonschema.Draft202012Validator(own["key"]).validate(record.key.decode())
        if own["payload"] is not None:
            value = json.loads(record.value)
            jsonschema.Draft202012Validator(own["payload"]).validate(value)
            known = [value.keys() <= form.keys() for form in forms(own["payload"])]
            assert any(known), "and nothing beside it"


def test_a_letter_has_its_reason_and_the_headers_of_what_was_refused(batch_of: MakeBatch) -> None:
    (letter,) = [r for r in published(batch_of) if r.topic == USAGE_DLQ]
    headers = dict(letter.headers)
    assert headers["meter_reason"] == b"malformed"
    assert headers["original_ce_type"] == USAGE_BATCH_TYPE.encode()
