"""Two names are never one: a name is kept exactly as it is given, or refused."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from metering.finishing import usage_of_payload
from metering.frame import frame_of
from metering.names import clean, fault_of
from metering.records import CONSTANT, RuleRecipe, Timing, Took, encode_head, encode_record
from metering.usage import UNATTRIBUTED
from metering.usage_columns import document_of, encode_columns
from metering.usage_struct import event_of
from triton_models.emitter.identity import FIELDS, header_field, identity_of
from triton_models.emitter.record import asked_by_texts, recorder_of

HEAD = encode_head(
    {name: name for name in CONSTANT} | {"speedup": 1}, "chat", RuleRecipe("equal-split")
)
ODD = (
    "\0\x01\t\n \u00a0\u00ad\u200b\u200c\u200d\u2028\u202e\ufeff\ufffd\ue000\U000e0041\ud800\udfff"
)
pieces = st.sampled_from(
    [*ODD, "a", "A", "é", "e\u0301", "ß", "漢", "🦊", "%", "'", '"', "\\", "/"]
)
names = st.one_of(
    st.lists(pieces, max_size=6).map("".join),
    st.text(max_size=6),
    st.integers(250, 260).map(lambda n: "n" * n),
    st.sampled_from([UNATTRIBUTED, "unattributed ", "x\0y", "x", "x\u200dy", "xy"]),
)


def recorded(text: str) -> tuple[str, str, bool]:
    """The tenant at the end of the way, where it came from, and whether the line is marked."""
    found = set()
    recorder = recorder_of(HEAD, batched=False)

    class Request:
        def request_id(self) -> str:
            return "r"

        def parameters(self) -> str:
            return text

    parts = [asked_by_texts(["r"], [text])]
    if recorder is not None and (compiled := recorder.asked([Request()])) is not None:
        parts.append(compiled)
    for asked in parts:
        payload = encode_record(HEAD, 7, Timing(0, 9, 1), asked, Took(1, 0, 1, 0))
        event = usage_of_payload(encode_columns(usage_of_payload(payload)))
        (request,) = event.requests
        frame = frame_of([event_of(document_of(event))])
        assert frame.payers[0][0] == request.tenant
        found.add((request.tenant, request.identity_source, request.invalid != ""))
    (one,) = found
    return one


@given(names, names, st.sampled_from(["tenant", "x-meter-tenant"]))
def test_two_tenants_are_never_one(one: str, two: str, field: str) -> None:
    ends = [recorded(json.dumps({field: name}, separators=(",", ":"))) for name in (one, two)]
    for name, (tenant, source, is_marked) in zip((one, two), ends, strict=True):
        if source == "refused":
            assert (tenant, is_marked) == (UNATTRIBUTED, True)
        elif source == "none":
            assert (name, tenant) == ("", UNATTRIBUTED)
        else:
            assert (tenant, is_marked) == (name, False)
    if one != two and ends[0][0] == ends[1][0]:
        assert ends[0][0] == UNATTRIBUTED


@given(names, st.sampled_from(FIELDS))
def test_a_name_is_itself_or_is_refused_and_said(name: str, field: str) -> None:
    found = identity_of({field: name})
    kept = getattr(found, field)
    if found.invalid:
        assert found.invalid.startswith(f"{field}: ")
        assert kept in ("", None, UNATTRIBUTED)
    else:
        assert (kept or "") == name or (field == "tenant" and name == "")


@given(names)
def test_a_request_id_is_itself_or_is_made_and_said(name: str) -> None:
    payload = encode_record(
        HEAD, 7, Timing(0, 9, 1), asked_by_texts([name], [""]), Took(1, 0, 1, 0)
    )
    (request,) = usage_of_payload(payload).requests
    if request.invalid:
        assert request.invalid.startswith("request_id: ")
    if name == "" or request.invalid:
        assert request.request_id == "7.0@source"
    else:
        assert request.request_id == name


@given(st.one_of(st.booleans(), st.floats(), st.lists(st.integers()), st.just({})))
def test_what_is_no_name_is_refused(value: object) -> None:
    found = identity_of({"tenant": value})
    assert (found.tenant, found.source) == (UNATTRIBUTED, "refused")
    assert found.invalid.startswith("tenant: a ")


@given(st.integers())
def test_a_whole_number_is_named_by_its_digits(number: int) -> None:
    assert clean(number) == str(number)
    assert fault_of(number) == ""


def test_a_refused_name_of_the_body_does_not_make_way_for_a_headers() -> None:
    found = identity_of([("tenant", "x\0y"), ("x-meter-tenant", "other")])
    assert (found.tenant, found.source) == (UNATTRIBUTED, "refused")
    assert header_field("x-meter-tenant") == "tenant"
