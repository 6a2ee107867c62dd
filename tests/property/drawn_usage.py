"""Usage as property tests draw it, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

from hypothesis import strategies as st

from metering.prices import parse_price_book
from metering.usage import UNEXECUTED, Outcome, UsageBatch

NS = 10**9
NOON_NS = 1_780_000_000 * NS
MakeBatch = Callable[..., UsageBatch]
BOOK = parse_price_book(
    '[[gpu_hour]]\nid = "a"\naccelerator = "cpu"\nregion = "*"\n'
    'usd_per_gpu_hour = "1.7"\neffective_from = 2020-01-01T00:00:00Z\n'
    '[[gpu_hour]]\nid = "b"\naccelerator = "gpu"\nregion = "eu"\n'
    'usd_per_gpu_hour = "98765.987654321"\neffective_from = 2020-01-01T00:00:00Z\n'
    '[[gpu_hour]]\nid = "a"\naccelerator = "gpu"\nregion = "us"\n'
    'usd_per_gpu_hour = "1.7"\neffective_from = 2020-01-01T00:00:00Z\n',
    "book",
)
EXECUTED = [s for s in get_args(Outcome) if s not in UNEXECUTED]
LARGEST = 2**53 - 1

MOST_REQUESTS = 5
amounts = st.one_of(st.integers(0, 20), st.integers(0, 10**9), st.integers(0, LARGEST))
parts = st.one_of(
    st.integers(0, 20), st.integers(0, 10**9), st.integers(0, LARGEST // MOST_REQUESTS)
)
"""Of a sum over a batch's requests, which has the same bound."""


@st.composite
def batches(draw: st.DrawFn, make: MakeBatch) -> list[UsageBatch]:
    return [drawn_batch(draw, make, n) for n in range(draw(st.integers(1, 6)))]


def drawn_batch(draw: st.DrawFn, make: MakeBatch, sequence: int) -> UsageBatch:
    executed = draw(st.booleans())
    gpu_ns = draw(st.one_of(st.integers(0, 10**9), st.integers(0, LARGEST))) if executed else 0
    requests = [
        _request(draw, EXECUTED if executed else sorted(UNEXECUTED))
        for _ in range(draw(st.integers(1, MOST_REQUESTS)))
    ]
    return make(
        sequence,
        gpu_ns=gpu_ns,
        executed=executed,
        requests=requests,
        accelerator=draw(st.sampled_from(["cpu", "gpu", "unheard of"])),
        region=draw(st.sampled_from(["eu", "us"])),
        model=draw(st.sampled_from(["a", "b"])),
        overlap_ns=draw(st.sampled_from([None, 0])),
        end_epoch_ns=NOON_NS + draw(st.integers(0, 400 * NS)),
    )


def _request(draw: st.DrawFn, statuses: Sequence[str]) -> dict[str, Any]:
    inputs, outputs = draw(parts), draw(parts)
    return {
        "tenant": draw(st.sampled_from(["acme", "globex", "ünï"])),
        "team": draw(st.sampled_from(["", "search"])),
        "retry_of": draw(st.sampled_from([None, "r-1"])),
        "status": draw(st.sampled_from(statuses)),
        "rows": draw(st.integers(1, 3)),
        "input_tokens": inputs,
        "cached_input_tokens": draw(st.integers(0, inputs)),
        "output_tokens": outputs,
        "queue_ns": draw(st.sampled_from([None, 0, 17])),
    }


WRONG = (-1, 0, 1, 2**53, 2**64, 1.5, 2.0, True, None, "", "x", "5", [], [1], {}, "x" * 257)


def spoil(data: st.DataObject, document: dict[str, Any]) -> None:
    where = data.draw(st.sampled_from([document, document["requests"]]))
    if not isinstance(where, dict) or not where:
        return
    name = data.draw(st.sampled_from(sorted(set(where) - {"requests", "columns"})))
    value = where[name]
    if data.draw(st.booleans()) and isinstance(value, list) and value:
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.sampled_from(WRONG))
    elif data.draw(st.booleans()):
        where[name] = data.draw(st.sampled_from(WRONG))
    else:
        del where[name]


NOT_PLAIN = [
    lambda text: text.replace(b'"rows":1', b'"rows":1.0'),
    lambda text: text.replace(b'"rows":1', b'"rows":1e0'),
    lambda text: text.replace(b'"rows":1', b'"rows":true'),
    lambda text: text.replace(b'"rows":1', b'"rows":18446744073709551617'),
    lambda text: text.replace(b'"rows":1', b'"rows":1,"rows":"1"'),
    lambda text: text.replace(b'"rows":1', b'"rows":NaN'),
    lambda text: text.replace(b'"device":""', b'"device":"\xff"'),
    lambda text: text.replace(b'"device":""', b'"device":"\\ud800"'),
    lambda text: text.replace(b'"device":""', b'"device":"\\udc00"'),
    lambda text: text.replace(b'"device":""', b'"unknown":"\xff"'),
    lambda text: text.replace(b'"device":""', b'"\xff":""'),
    lambda text: text.replace(b'"device":""', b'"unknown":"\\ud800"'),
    lambda text: text.replace(b'"device":""', b'"unknown":01'),
    lambda text: text + b"x",
    lambda text: text[:-1],
]  # fmt: skip
"""What makes an event's text none, or one that only the objects' parser understands."""
