"""A record becomes an event on its way to Kafka; what can't be read goes as it is."""

from __future__ import annotations

from collections.abc import Callable

from metering.finishing import usage_of_payload
from metering.records import (
    CONSTANT,
    Asked,
    RuleRecipe,
    Timing,
    Took,
    encode_asked,
    encode_head,
    encode_record,
)
from metering.usage import UsageBatch
from streams.shipper.ship import event_of

PAYERS = [["acme", "", "", "", None, "header"]]


def record(cached: int) -> bytes:
    constant = {name: name for name in CONSTANT} | {"speedup": 1}
    head = encode_head(constant, "chat", RuleRecipe("equal-split"))
    asked = encode_asked(Asked(["r-1"], PAYERS, [0]))
    return encode_record(head, 3, Timing(100, 142, 1), asked, Took([30], [cached], [5], 0))


def test_a_record_is_shipped_as_the_event_it_stands_for() -> None:
    event = usage_of_payload(event_of(record(cached=0)))
    assert (event.source, event.sequence, event.gpu_ns) == ("source", 3, 42)
    assert [r.tenant for r in event.requests] == ["acme"]


def test_a_record_with_impossible_tokens_is_an_event_that_says_so() -> None:
    (request,) = usage_of_payload(event_of(record(cached=31))).requests
    assert request.invalid == "cached_input_tokens=31 exceeds input_tokens=30"


def test_a_record_that_can_not_be_read_is_shipped_as_it_is() -> None:
    unreadable = record(cached=0).replace(b'"end_ns":', b'"the_end_ns":')
    assert event_of(unreadable) == unreadable


def test_an_event_that_is_whole_is_not_touched(batch_of: Callable[..., UsageBatch]) -> None:
    whole = batch_of().model_dump_json(indent=1).encode()
    assert event_of(whole) == whole
