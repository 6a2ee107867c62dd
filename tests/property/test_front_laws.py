"""What passes between a front and its model: nothing is lost, and a client can't forge it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_models.emitter.identity import FIELDS, FRONT, Pairs, identity_of, is_ours, pairs_of
from triton_models.emitter.receipt import UNKNOWN, Receipt, as_tensor, from_tensor, hit_of
from triton_models.emitter.stamp import Stamp, Unforwardable, forwarded, taken_off

names = st.sampled_from(
    [*FIELDS, "x-meter-tenant", "X-Meter-Tenant", "x-meter-retry-of", FRONT, "temperature", ""]
) | st.text(max_size=6)
plain = st.text(max_size=20) | st.booleans() | st.integers(1 - 2**63, 2**63 - 1)
parameters = st.lists(st.tuples(names, plain), max_size=8)
echoes = st.from_regex(r"[0-9a-f]{1,12}-[0-9]{1,6}", fullmatch=True)
stamps = st.builds(
    Stamp,
    echo=echoes,
    arrival_ns=st.integers(0, 2**62),
    flag=st.just("")
    | st.from_regex(r"[0-9]{1,5}\.[0-9]{1,3}\.[0-9a-f]{16}\.[0-9]{1,4}", fullmatch=True),
)
counts = st.integers(0, 2**40)


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    given_tokens, output = draw(counts), draw(counts)
    return Receipt(
        draw(echoes),
        given_tokens,
        draw(st.integers(0, given_tokens)),
        output,
        draw(st.integers(0, output)),
    )


def as_triton_has_them(passed: object) -> str:
    return json.dumps(passed, separators=(",", ":"), ensure_ascii=False)


@given(parameters, stamps)
def test_a_metered_model_bills_whom_the_front_would_and_gets_its_stamp(
    said: Pairs, stamp: Stamp
) -> None:
    text = as_triton_has_them(forwarded(said, stamp, metered=True))
    rest, found = taken_off(text)
    assert found == stamp
    assert identity_of(pairs_of(rest)) == identity_of(said)
    without = {name: value for name, value in said if name != FRONT}
    assert dict(pairs_of(rest)) == without


@given(parameters, stamps)
def test_a_model_that_is_not_metered_gets_nothing_of_the_meters(said: Pairs, stamp: Stamp) -> None:
    passed = forwarded(said, stamp, metered=False)
    assert not [name for name in passed if is_ours(name)]
    assert passed == {name: value for name, value in said if not is_ours(name)}


@given(st.lists(st.tuples(names.filter(lambda n: n != FRONT), plain), max_size=8))
def test_no_text_of_a_client_looks_like_a_stamp(said: Pairs) -> None:
    text = as_triton_has_them(dict(said))
    assert taken_off(text) == (text, None)


@given(stamps, st.sampled_from(["a", "tenant"]))
def test_a_stamp_within_a_clients_value_is_none(stamp: Stamp, name: str) -> None:
    for value in (f'","{FRONT}":"{stamp.encode()}', f'{{"{FRONT}":"{stamp.encode()}"}}'):
        assert taken_off(as_triton_has_them({name: value}))[1] is None


@given(st.text())
def test_whatever_is_no_stamp_is_left_as_it_is(text: str) -> None:
    assert taken_off(text) == (text, None)


@given(names, st.floats() | st.none() | st.integers(min_value=2**63) | st.lists(st.integers()))
def test_what_bls_can_not_take_is_refused_by_name(name: str, value: object) -> None:
    if is_ours(name):
        return
    with pytest.raises(Unforwardable, match="can't be passed on"):
        forwarded([(name, value)], None, metered=False)


@given(stamps, st.integers(0, 2**62))
def test_a_stamp_of_the_future_or_of_hours_ago_tells_no_time(stamp: Stamp, start_ns: int) -> None:
    waited_ns = stamp.queue_ns(start_ns)
    if 0 <= start_ns - stamp.arrival_ns <= 3600 * 10**9:
        assert waited_ns == start_ns - stamp.arrival_ns
    else:
        assert waited_ns is None


@given(receipts(), st.integers(1, 9), st.booleans(), echoes)
def test_only_a_receipt_with_another_echo_is_a_hit_and_has_its_tokens(
    receipt: Receipt, rows: int, batched: bool, own: str
) -> None:
    tensor = as_tensor(receipt, rows, batched=batched)
    assert tensor.shape == ((rows, 1) if batched else (1,))
    assert from_tensor(tensor) == receipt
    assert hit_of(tensor, receipt.echo) is None
    assert hit_of(tensor, own) == (None if own == receipt.echo else receipt)
    assert hit_of(None, own) == UNKNOWN


@given(
    st.binary()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["echo", "input_tokens", "output_tokens"]), inner, max_size=3
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_a_receipt_that_can_not_be_read_is_no_hit(raw: bytes) -> None:
    tensor = np.array([[raw]], dtype=np.object_)
    assert from_tensor(tensor) is None
    assert hit_of(tensor, "mine") is None


@pytest.mark.parametrize("tokens", ["many", None, [1], -1, 1.5, 2**60])
def test_impossible_tokens_make_no_hit_and_fail_no_answer(tokens: object) -> None:
    receipt = Receipt("theirs", input_tokens=tokens)  # type: ignore[arg-type]  # a model's mistake
    assert from_tensor(as_tensor(receipt, 1, batched=True)) is None


def test_counts_of_numpy_are_counts() -> None:
    receipt = Receipt("theirs", input_tokens=np.int32(5))  # type: ignore[arg-type]  # as models do
    assert from_tensor(as_tensor(receipt, 1, batched=True)) == Receipt("theirs", 5)
