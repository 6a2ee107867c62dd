"""No parameters that a client can send crash the meter, or make it believe them over a gateway."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.finishing import usage_of_payload
from metering.names import fault_of
from metering.records import Timing, encode_head, encode_record
from metering.usage import UNATTRIBUTED, parse_usage
from triton_models.emitter.facts import Process, facts_of
from triton_models.emitter.gateway import Gate, KeyFile, Uses
from triton_models.emitter.gateway_token import sign
from triton_models.emitter.identity import (
    FIELDS,
    Identity,
    Pairs,
    header_field,
    identity_of,
    pairs_of,
    strip,
)
from triton_models.emitter.record import Served, asked_by, took

KEY = b"the gateway's key, of 32 characters and more"
NOW_S = 1_780_000_000
TOKEN = "x-meter-gateway-token"  # noqa: S105  # a header's name
SERVED = Served(input_tokens=9, cached_input_tokens=2, output_tokens=4, reasoning_tokens=1)
FACTS = facts_of(
    {
        "model_config": "{}",
        "model_name": "m",
        "model_version": "1",
        "model_instance_name": "m_0_0",
    },
    {},
    Process("host-1", "0a1b2c3d-10-100", "11-200"),
)


@pytest.fixture(scope="module")
def gate_that(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Gate]:
    file = tmp_path_factory.mktemp("keys") / "gateway.keys"
    file.write_bytes(KEY)

    def make(refusal: str) -> Gate:
        return Gate(
            KeyFile(file, lambda _: None),
            rejects=refusal == "rejects",
            max_age_s=300,
            max_uses=0,
            log=lambda _: None,
        )

    return make


def spelled(rng: random.Random, name: str) -> str:
    return "".join(rng.choice((c.lower(), c.upper())) for c in name)


OURS = [*FIELDS, *(f"x-meter-{name.replace('_', '-')}" for name in FIELDS), TOKEN, "x-meter-"]
JUNK = "\x00\x01\x1b\x7f\u0085\u200b\u202e\ufeff\ufffe\U0010ffffüß漢🦊'\"\\{}[],:;%_-. \n\r\tA0"
NUMBERS = [
    *("0", "-0", "-1", "42", "1.5", "1e5", "-1e-400", "1e400", "NaN", "Infinity", "-Infinity"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616"),
    *("1" * 256, "9" * 257, "7" * 4_300, "7" * 4_301, "00", "0x1", "+1", "1_000"),
]
SURROGATES = [
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\\ud83e\\udd8a"',
    '"\\u0000"',
    '"\\uZZZZ"',
    '"\\x"',
]
HUGE = json.dumps("x" * 100_000)
DEEP = "[" * 2_000 + "]" * 2_000


def junk(rng: random.Random, most: int) -> str:
    return "".join(rng.choices(JUNK, k=rng.randrange(most)))


KINDS: list[Callable[[random.Random], str]] = [
    *[lambda rng: json.dumps(junk(rng, 20), ensure_ascii=rng.random() < 0.5)] * 3,
    *[lambda rng: rng.choice(NUMBERS)] * 2,
    lambda rng: rng.choice(SURROGATES),
    lambda rng: rng.choice(("true", "false", "null", "[]", "{}", '""', '" "', "nul", "")),
    lambda rng: json.dumps({junk(rng, 5): [junk(rng, 5), {"tenant": junk(rng, 5)}]}),
    lambda rng: json.dumps(rng.choice("aé🦊") * rng.choice((255, 256, 257, 511, 512, 513, 2_000))),
    lambda rng: json.dumps(f"{junk(rng, 9)}.{junk(rng, 9)}.{junk(rng, 9)}"),
    lambda rng: rng.choice((HUGE, DEEP)) if rng.random() < 0.01 else '"rare"',
    *[lambda rng: f'"t-{rng.randrange(100)}"'] * 2,
]
"""Values as JSON has them, or nearly."""


def payload(rng: random.Random) -> str:
    """A request's parameters as the backend might hand them over: a name may come often."""
    entries = []
    for _ in range(rng.randrange(7)):
        name = spelled(rng, rng.choice(OURS)) if rng.random() < 0.7 else junk(rng, 12)
        entries += [f"{json.dumps(name)}:{rng.choice(KINDS)(rng)}"] * (
            2 if rng.random() < 0.1 else 1
        )
    text = "{" + ",".join(entries) + "}"
    if rng.random() < 0.1 and entries:
        cut = rng.randrange(len(text))
        text = text[:cut] + rng.choice(("", junk(rng, 3))) + text[cut + rng.randrange(3) :]
    return text


def own_token(rng: random.Random) -> str:
    claims: dict[str, object] = {"iat": NOW_S, "jti": str(rng.random())}
    for name in rng.sample(FIELDS, rng.randrange(len(FIELDS) + 1)):
        claims[name] = rng.choice(
            (f"g-{name}", junk(rng, 9), rng.randrange(99), None, [], "x" * 300)
        )
    return sign(KEY, claims)


def survives(batch: list[tuple[str, Identity]]) -> None:
    asked = asked_by([request_id for request_id, _ in batch], [i for _, i in batch])
    taken = took(
        [1] * len(batch),
        [SERVED] * len(batch),
        others={n: "error" for n, (_, i) in enumerate(batch) if i.refusal is not None},
    )
    head = encode_head(FACTS.constant(), "chat", FACTS.recipe)
    event = usage_of_payload(encode_record(head, 7, Timing(5, 1_000_000, 9), asked, taken))
    raw = event.model_dump_json().encode()
    assert parse_usage(raw) == event
    json.loads(raw)
    for (_, identity), request in zip(batch, event.requests, strict=True):
        assert request.tenant == identity.tenant != ""
        assert request.identity_source == identity.source
        if identity.source in {"none", "refused"}:
            assert request.tenant == UNATTRIBUTED


@pytest.mark.parametrize("seed", range(2))
def test_ten_thousand_fuzzed_payloads_crash_nothing_and_none_passes_for_the_gateways(
    seed: int, gate_that: Callable[[str], Gate]
) -> None:
    rng = random.Random(seed)
    gates = [gate_that("rejects"), gate_that("ignores")]
    readable = proven = 0
    for number in range(10_000):
        text = payload(rng)
        request_id = junk(rng, 9)
        pairs = pairs_of(text)
        readable += bool(pairs)
        signed = rng.random() < 0.2
        if signed:
            pairs = [*pairs, (spelled(rng, TOKEN), own_token(rng))]
        gate = gates[number % 2]
        try:
            (judged,) = gate.identify([pairs], NOW_S)
            survives([(request_id, identity_of(pairs)), (request_id, judged)])
        except Exception as exc:
            exc.add_note(f"payload {number} of seed {seed}: {text[:2_000]!r}")
            raise
        proven += judged.source == "gateway"
        assert signed or judged.source == "refused"
        assert signed or judged.refusal is not None
    # What it fuzzes is not all waste that is dropped at the door.
    assert readable > 4_000
    assert proven > 50  # A token with a name that can't be one proves nothing.
    assert sum(gate.refused.total() for gate in gates) > 7_000


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)
respelled = st.sampled_from(OURS).flatmap(
    lambda name: st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(
        lambda ups: "".join(c.upper() if up else c for c, up in zip(name, ups, strict=True))
    )
)
client_pairs = st.lists(st.tuples(respelled | st.text(), values), max_size=6)
claim = st.text(max_size=20).filter(lambda t: not fault_of(t)) | st.none() | st.integers()
claims_of_a_gateway = st.fixed_dictionaries(
    {"iat": st.just(NOW_S), "jti": st.just("r")}, optional={name: claim for name in FIELDS}
)


@given(client_pairs, claims_of_a_gateway, st.sampled_from(["rejects", "ignores"]))
def test_beside_a_gateways_token_a_client_changes_nothing_but_whether_it_is_served(
    gate_that: Callable[[str], Gate], said: Pairs, claims: dict[str, object], refusal: str
) -> None:
    header = (TOKEN, sign(KEY, claims))
    (alone,) = gate_that(refusal).identify([[header]], NOW_S)
    assert alone.refusal is None
    gate = gate_that(refusal)
    (found,) = gate.identify([[*said, header]], NOW_S)
    if gate.rejection_of(found) is not None:
        assert (found.tenant, found.source) == (UNATTRIBUTED, "refused")
    else:
        for name in ("tenant", "team", "project", "user", "source"):
            assert getattr(found, name) == getattr(alone, name)


@given(client_pairs, claims_of_a_gateway, st.data())
def test_a_token_with_one_character_changed_is_worth_nothing(
    gate_that: Callable[[str], Gate], said: Pairs, claims: dict[str, object], data: st.DataObject
) -> None:
    sound = sign(KEY, claims)
    # The last character has bits to spare.
    at = data.draw(st.integers(0, len(sound) - 2))
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != sound[at]))
    forged = sound[:at] + other + sound[at + 1 :]
    (found,) = gate_that("ignores").identify([[*said, (TOKEN, forged)]], NOW_S)
    assert found.source == "refused"


@given(client_pairs, st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9))
def test_where_identity_is_open_a_header_goes_before_all_its_twins_in_the_body(
    said: Pairs, real: str
) -> None:
    without_plain = [(name, value) for name, value in said if name != "tenant"]
    found = identity_of([*without_plain, ("X-Meter-Tenant", real)])
    assert (found.tenant, found.source) == (real, "header")


@given(st.dictionaries(respelled | st.text(), values))
def test_what_is_stripped_says_nothing_of_identity_and_the_rest_is_kept(
    parameters: dict[str, object],
) -> None:
    rest = strip(parameters)
    nobody = identity_of(rest)
    assert nobody == Identity(UNATTRIBUTED, "", "", "", None, "none")
    assert all(header_field(name) is None for name in rest)
    assert rest.items() <= parameters.items() or rest != rest  # noqa: PLR0124  # NaN inside
    gone = parameters.keys() - rest.keys()
    assert all(name.lower() in FIELDS or name.lower().startswith("x-meter-") for name in gone)


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.floats(0, 40)), max_size=60),
    st.integers(1, 3),
)
def test_no_token_is_used_more_often_than_its_limit_in_any_window(
    uses: list[tuple[bytes, float]], limit: int
) -> None:
    window_s = 100
    book = Uses(limit, window_s)
    now_s = 5_000.0
    granted: dict[bytes, list[float]] = defaultdict(list)
    asked: dict[bytes, int] = defaultdict(int)
    for mac, later_s in uses:
        now_s += later_s
        if book.spend(mac, now_s):
            granted[mac].append(now_s)
        # The first uses are always granted.
        asked[mac] += 1
        assert asked[mac] > limit or len(granted[mac]) == asked[mac]
    for times in granted.values():
        first_use = times[0]
        assert sum(t < first_use + window_s for t in times) <= limit
