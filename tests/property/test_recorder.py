"""The compiled recorder says what Python says of a batch, or leaves it to Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from shutil import which
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.compiled_server import IS_COMPILED
from metering.errors import MeteringError
from metering.records import Timing, encode_record
from metering.usage import UNATTRIBUTED
from metering.wal import encode_frame
from triton_models.emitter.identity import FIELDS, HEADER_PREFIX, payer_of_text
from triton_models.emitter.record import Served, asked_by_texts, recorder_of, took

if not IS_COMPILED and which("cc") is None and which("gcc") is None:
    pytest.skip("no C compiler: a server does without the recorder", allow_module_level=True)

from metering import recorder

HEAD = b'{"record":1,"source":"s"'


def test_there_is_one() -> None:
    assert IS_COMPILED, "there is a C compiler, so install the package anew (`make env`)"


def test_it_reads_what_a_model_tells_by_its_places() -> None:
    assert Served._fields == (
        "outputs", "error", "by_client", "input_tokens", "cached_input_tokens", "output_tokens",
        "reasoning_tokens", "row_tokens", "turns",
    )  # fmt: skip


@dataclass(frozen=True)
class Request:
    id: Any
    text: Any

    def request_id(self) -> Any:
        return self.id

    def parameters(self) -> Any:
        if isinstance(self.text, bytes):
            return self.text.decode()  # As the backend does it.
        return self.text


def recorder_for(head: bytes = HEAD, *, batched: bool = True) -> recorder.Recorder:
    found = recorder_of(head, batched=batched)
    assert found is not None
    return found


def told(asked: bytes) -> list[tuple[str, object]]:
    """Each request's id and payer: two texts may stand for one payer."""
    document = json.loads(b"{%b}" % asked)
    payers = document["payers"]
    return [(i, payers[n]) for i, n in zip(document["requests"], document["payer"], strict=True)]


_names = st.sampled_from([*FIELDS, "Tenant", "x-meter-", "filler", "", "x-meter-gateway-token"]) | (
    st.sampled_from(FIELDS).flatmap(
        lambda field: st.sampled_from(
            [
                HEADER_PREFIX + field,
                HEADER_PREFIX + field.replace("_", "-"),
                (HEADER_PREFIX + field).title(),
                HEADER_PREFIX.upper() + field,
                "x_meter_" + field,
            ]
        )
    )
)
_plain = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
_values = st.one_of(
    _plain,
    _plain.map(lambda text: f" {text}  "),
    st.integers(0, 9).map(lambda n: "v" * (253 + n)),
    st.text(max_size=6),
    st.integers(),
    st.booleans(),
    st.none(),
    st.lists(st.integers(), max_size=2),
)


def as_object(pairs: Sequence[tuple[str, object]], separators: tuple[str, str]) -> str:
    comma, colon = separators
    return "{" + comma.join(f"{json.dumps(k)}{colon}{json.dumps(v)}" for k, v in pairs) + "}"


_texts = st.one_of(
    st.builds(
        as_object,
        st.lists(st.tuples(_names, _plain), max_size=6),
        st.just((",", ":")),
    ),
    st.builds(
        as_object,
        st.lists(st.tuples(_names, _values), max_size=6),
        st.sampled_from([(",", ":"), (", ", ": ")]),
    ),
    st.sampled_from(["", "{}", "{", "}", '{"', '{"tenant"}', '{"tenant":"a",}', '{"tenant":"a"}}']),
    st.text(max_size=20),
)
_ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(_ids, _texts), max_size=12))
def test_who_asked_is_who_python_says(batch: list[tuple[str, str]]) -> None:
    found = recorder_for().asked([Request(i, text) for i, text in batch])
    if found is None:
        assert any('"' in i or "\\" in i or min(i, default=" ") < " " for i, _ in batch)
    else:
        assert told(found) == told(asked_by_texts([i for i, _ in batch], [t for _, t in batch]))


@given(st.data())
def test_a_text_that_is_cut_or_damaged_is_read_as_python_reads_it(data: st.DataObject) -> None:
    text = data.draw(_texts)
    place = data.draw(st.integers(0, len(text)))
    damaged = text[:place] + data.draw(st.sampled_from(["", '"', "{", "}", ",", ":", "\\", " "]))
    damaged += text[place + data.draw(st.integers(0, 1)) :] if data.draw(st.booleans()) else ""
    found = recorder_for().asked([Request("r", damaged)])
    assert found is not None
    assert told(found) == told(asked_by_texts(["r"], [damaged]))


@pytest.mark.parametrize("kinds", [1, 2, 63, 64, 65, 200])
def test_requests_of_many_payers_have_each_its_own(kinds: int) -> None:
    texts = [json.dumps({"tenant": f"t-{n % kinds}"}, separators=(",", ":")) for n in range(400)]
    found = recorder_for().asked([Request(f"r-{n}", text) for n, text in enumerate(texts)])
    assert found is not None
    assert told(found) == told(asked_by_texts([f"r-{n}" for n in range(400)], texts))
    if kinds <= 64:
        assert len(json.loads(b"{%b}" % found)["payers"]) == kinds


@pytest.mark.parametrize(
    "request_of",
    [
        Request('a"b', "{}"),
        Request("a\\b", "{}"),
        Request("a\nb", "{}"),
        Request("a\ud800b", "{}"),
        Request("a" * 513, "{}"),
        Request("r", b'{"tenant":"\xff"}'),
        Request("r", '{"tenant":"\ud800"}'),
    ],
    ids=["quote", "backslash", "control", "half a pair", "long", "no UTF-8", "half a pair in it"],
)
def test_what_python_has_to_mend_is_left_to_it(request_of: Request) -> None:
    one = recorder_for()
    assert one.asked([Request("first", "{}"), request_of]) is None
    assert one.asked([Request("r", '{"tenant":"a"}')]) == asked_by_texts(["r"], ['{"tenant":"a"}'])


def test_a_batch_in_the_midst_of_another_is_left_to_python_and_harms_it_not() -> None:
    one = recorder_for()
    within: list[object] = []

    class Nested(Request):
        def parameters(self) -> Any:
            within.append(one.asked([Request("inner", '{"tenant":"b"}')] * 9))
            within.append(one.record(1, Timing(1, 2, 3), b"", [FINE] * 9))
            return super().parameters()

    batch = [Nested(f"r-{n}", '{"tenant":"a"}') for n in range(3)]
    found = one.asked(batch)
    assert found is not None
    assert told(found) == told(asked_by_texts(["r-0", "r-1", "r-2"], ['{"tenant":"a"}'] * 3))
    assert within == [None] * 6


def test_an_error_of_a_request_is_passed_on_and_the_next_batch_is_fine() -> None:
    class Broken(Request):
        def request_id(self) -> Any:
            raise ZeroDivisionError("as it should not")

    one = recorder_for()
    with pytest.raises(ZeroDivisionError):
        one.asked([Broken("r", "{}")])
    assert one.asked([Request("r", "{}")]) is not None


def test_who_is_nobody_is_said_as_python_says_it() -> None:
    assert recorder_for().asked([Request("", "")]) == asked_by_texts([""], [""])
    assert payer_of_text("").startswith(b'["%b"' % UNATTRIBUTED.encode())


numbers = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3)
timings = st.builds(Timing, numbers, numbers, numbers, *[st.none() | numbers] * 4)


def answer(rows: int, *tokens: int) -> Served:
    return Served({"Y": np.zeros((rows, 2)), "Z": np.zeros((rows,))}, None, False, *tokens)


counts = st.integers(0, 2**53 - 1) | st.integers(0, 3)
answers = st.builds(answer, st.integers(1, 3), *[counts] * 4)


@given(st.integers(0, 2**63 - 1), timings, st.lists(answers, max_size=9), st.booleans())
def test_a_record_is_pythons(
    sequence: int, timing: Timing, served: list[Served], batched: bool
) -> None:
    rows = [s.outputs["Y"].shape[0] if batched else 1 for s in served]
    asked = b'"requests":["r"]'
    found = recorder_for(batched=batched).record(sequence, timing, asked, served)
    assert found == encode_record(HEAD, sequence, timing, asked, took(rows, served))


FINE = answer(1, 5, 0, 7, 0)


@pytest.mark.parametrize(
    "served",
    [
        FINE._replace(error="no"),
        FINE._replace(row_tokens=((1, 2),)),
        FINE._replace(turns=((0, 1, 2, 3),)),
        FINE._replace(input_tokens=2**63),
        FINE._replace(input_tokens=2**53),
        FINE._replace(input_tokens=-1),
        FINE._replace(input_tokens=np.int64(3)),
        FINE._replace(output_tokens=True),
        FINE._replace(output_tokens=1.5),
        FINE._replace(outputs={}),
        FINE._replace(outputs={"Y": np.zeros(())}),
        FINE._replace(outputs={"Y": np.zeros((0, 2))}),
        FINE._replace(outputs={"Y": [1]}),
        FINE._replace(row_tokens=None),
        FINE._replace(turns=5),
        tuple(FINE),
        None,
    ],
)
def test_a_batch_that_is_not_usual_is_left_to_python(served: Any) -> None:
    one = recorder_for()
    assert one.record(1, Timing(1, 2, 3), b"", [FINE, served]) is None
    assert one.record(2**64, Timing(1, 2, 3), b"", [FINE]) is None
    assert one.record(1, Timing(1, 2, 3), b"", [FINE]) is not None


@given(st.integers(0, 2**64 - 1), st.binary(min_size=1, max_size=70))
def test_a_frame_is_pythons(sequence: int, payload: bytes) -> None:
    assert recorder.frame(sequence, payload) == encode_frame(sequence, payload)


@pytest.mark.parametrize(
    ("sequence", "payload", "problem"),
    [(0, b"", "payload of 0 bytes"), (-1, b"x", "sequence=-1"), (2**64, b"x", "is not a u64")],
)
def test_what_is_no_frame_is_refused_as_by_python(
    sequence: int, payload: bytes, problem: str
) -> None:
    with pytest.raises(MeteringError, match=problem):
        recorder.frame(sequence, payload)
