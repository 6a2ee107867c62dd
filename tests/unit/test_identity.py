"""Who may say who pays: a gateway's token, its key, its uses, and what becomes of the rest."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

import pytest

from metering.errors import MeteringError
from triton_models.emitter.facts import warm_ups_of
from triton_models.emitter.gateway import Gate, Uses, gate_of
from triton_models.emitter.gateway_token import LEEWAY_S, Untrusted, sign, verify
from triton_models.emitter.identity import Identity, Pairs, identity_of, pairs_of, strip

KEY, OTHER = b"k" * 32, b"o" * 32
NOW_S = 1_780_000_000.5
TOKEN = "x-meter-gateway-token"  # noqa: S105  # a header's name


def claims(**changes: Any) -> dict[str, Any]:
    given = {"tenant": "acme", "team": "search", "iat": int(NOW_S), "jti": "r-1"} | changes
    return {name: value for name, value in given.items() if value is not None}


def token(key: bytes = KEY, **changes: Any) -> str:
    return sign(key, claims(**changes))


class Desk:
    """A gate with what it has said."""

    def __init__(self, folder: Path, *keys: bytes, **env: str) -> None:
        self.said: list[str] = []
        self.file = folder / "gateway.keys"
        self.file.write_bytes(b"\n".join(keys or (KEY,)) + b"\n")
        settings = {"METER_IDENTITY": "gateway", "METER_GATEWAY_KEY_FILE": str(self.file)} | env
        gate = gate_of({}, settings, self.said.append)
        assert gate is not None
        self.gate: Gate = gate

    def identify(self, *pairs: tuple[str, object], now_s: float = NOW_S) -> Identity:
        (found,) = self.gate.identify([pairs], now_s)
        return found


def refusal(given: object, *keys: bytes, now_s: float = NOW_S, max_age_s: int = 300) -> str:
    with pytest.raises(Untrusted) as caught:
        verify(given, keys or (KEY,), now_s=now_s, max_age_s=max_age_s)
    return caught.value.refusal


def test_the_example_of_rfc_7515_is_a_sound_signature_and_says_too_little() -> None:
    key = base64.urlsafe_b64decode(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow=="
    )
    example = (
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
        ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0"
        "cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    )
    assert refusal(example, key) == "malformed_token"
    assert refusal(example, KEY) == "forged_token"


def test_a_token_of_any_of_the_keys_is_sound() -> None:
    for key in (KEY, OTHER):
        found, mac = verify(token(key), (KEY, OTHER), now_s=NOW_S, max_age_s=300)
        assert found == claims()
        assert len(mac) == 32
    assert refusal(token(OTHER), KEY) == "forged_token"


def test_the_algorithm_is_not_the_tokens_to_choose() -> None:
    _, body, mac = token().split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    assert refusal(f"{none}.{body}.") == "malformed_token"
    assert refusal(f"{none}.{body}.{mac}") == "forged_token"


def test_a_signed_token_of_another_algorithm_or_with_critical_extensions_is_malformed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    headers: list[object] = [{"alg": "HS512"}, {"alg": "HS256", "crit": ["b64"]}, [], {}]
    for header in headers:
        monkeypatch.setattr("triton_models.emitter.gateway_token._HEADER", header)
        given = token()
        monkeypatch.undo()
        assert refusal(given) == "malformed_token"


@pytest.mark.parametrize(
    "given", [None, 7, True, "", "a.b", "a.b.c.d", "é.b.c", "a.b.c\x00", "a b.c.d", "x" * 5_000]
)
def test_what_is_no_token_is_malformed(given: object) -> None:
    assert refusal(given) == "malformed_token"


@pytest.mark.parametrize(
    "changes",
    [
        {"jti": None},
        {"jti": ""},
        {"iat": None},
        {"iat": True},
        {"iat": "1780000000"},
        {"iat": float("nan")},
        {"exp": "soon"},
        {"nbf": [1]},
    ],
    ids=str,
)
def test_a_token_without_an_id_or_a_time_is_malformed(changes: dict[str, Any]) -> None:
    assert refusal(token(**changes)) == "malformed_token"


@pytest.mark.parametrize(
    ("changes", "sound"),
    [
        ({"iat": NOW_S - 300}, True),
        ({"iat": NOW_S - 301}, False),
        ({"iat": NOW_S + LEEWAY_S}, True),
        ({"iat": NOW_S + LEEWAY_S + 1}, False),
        ({"exp": NOW_S}, True),
        ({"exp": NOW_S - 1}, False),
        ({"iat": NOW_S - 301, "exp": NOW_S + 999}, False),
        ({"nbf": NOW_S + LEEWAY_S}, True),
        ({"nbf": NOW_S + LEEWAY_S + 1}, False),
        ({"iat": 10**400}, False),
        ({"iat": float("-inf")}, False),
    ],
    ids=str,
)
def test_a_token_is_good_for_five_minutes_at_most(changes: dict[str, Any], sound: bool) -> None:
    if sound:
        verify(token(**changes), (KEY,), now_s=NOW_S, max_age_s=300)
    else:
        assert refusal(token(**changes)) == "expired_token"


def test_a_sound_token_says_who_pays(tmp_path: Path) -> None:
    found = Desk(tmp_path).identify(("own", 1), (TOKEN, token(user="ann", retry_of="r-0")))
    assert found == Identity("acme", "search", "", "ann", "r-0", "gateway")


def test_a_token_without_a_tenant_is_nobodys_and_not_refused(tmp_path: Path) -> None:
    found = Desk(tmp_path).identify((TOKEN, token(tenant=None)))
    assert (found.tenant, found.team, found.source) == ("unattributed", "search", "none")
    assert found.refusal is None


def test_a_client_may_say_which_request_it_tries_again(tmp_path: Path) -> None:
    assert Desk(tmp_path).identify(("retry_of", "r-0"), (TOKEN, token())).retry_of == "r-0"


SPOOFS: list[Pairs] = [
    [("tenant", "victim")],
    [("Tenant ", "victim")],
    [("team", "victim")],
    [("project", "")],
    [("USER", 7)],
    [("x-meter-tenant", "victim")],
    [("X-METER-Tenant", "victim"), ("x-meter-tenant", "acme")],
    [("x-meter-project", "left out by the gateway")],
    [("x-meter-anything", "1")],
    [("X-Meter-Gateway-Token", "a.b.c")],
]


@pytest.mark.parametrize("spoof", SPOOFS, ids=str)
@pytest.mark.parametrize("signed", [True, False])
def test_identity_that_a_client_sets_is_rejected_with_and_without_a_token(
    tmp_path: Path, spoof: Pairs, signed: bool
) -> None:
    desk = Desk(tmp_path)
    found = desk.identify(*spoof, *([(TOKEN, token())] if signed else []))
    assert (found.tenant, found.team, found.source) == ("unattributed", "", "refused")
    told = desk.gate.rejection_of(found)
    assert told is not None
    assert str(found.refusal) in told
    assert "victim" not in told
    if signed:
        assert found.refusal == "client_set"


@pytest.mark.parametrize("spoof", SPOOFS, ids=str)
def test_where_refusals_are_ignored_a_client_can_not_get_off_its_own_account(
    tmp_path: Path, spoof: Pairs
) -> None:
    desk = Desk(tmp_path, METER_IDENTITY_REFUSAL="ignore")
    found = desk.identify(*spoof, (TOKEN, token()))
    assert (found.tenant, found.team, found.source) == ("acme", "search", "gateway")
    assert desk.gate.refused == {"client_set": 1}
    nobody = desk.identify(*spoof)
    assert (nobody.tenant, nobody.source) == ("unattributed", "refused")
    assert desk.gate.rejection_of(found) is desk.gate.rejection_of(nobody) is None


def test_plain_headers_that_say_what_the_token_says_are_no_spoof(tmp_path: Path) -> None:
    beside = [("X-Meter-Tenant", "acme"), ("x-meter-team", "search"), ("x-meter-user", " ")]
    assert Desk(tmp_path).identify(*beside, (TOKEN, token())).source == "gateway"


def test_silence_is_refused_too(tmp_path: Path) -> None:
    found = Desk(tmp_path).identify(("own", 1))
    assert (found.tenant, found.source, found.refusal) == ("unattributed", "refused", "unproven")


def test_a_token_is_used_up_and_another_is_not(tmp_path: Path) -> None:
    desk = Desk(tmp_path, METER_GATEWAY_MAX_USES="2")
    one, two = (TOKEN, token(jti="one")), (TOKEN, token(jti="two"))
    assert [desk.identify(one).source for _ in range(3)] == ["gateway", "gateway", "refused"]
    assert desk.identify(one).refusal == "used_token"
    assert desk.identify(two).source == "gateway"


def test_a_respelled_signature_is_the_same_token(tmp_path: Path) -> None:
    desk = Desk(tmp_path, METER_GATEWAY_MAX_USES="1")
    given = token()
    # 32 bytes are 43 characters with two bits to spare: four last ones mean the same.
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = digits.index(given[-1])
    assert desk.identify((TOKEN, given)).source == "gateway"
    for twin in (given[:-1] + digits[last ^ 1], given[:-1] + digits[last ^ 2], f" {given} "):
        assert desk.identify((TOKEN, twin)).refusal == "used_token"


def test_uses_are_forgotten_only_after_the_window_even_if_the_clock_is_set_back() -> None:
    uses = Uses(1, 100)
    assert uses.spend(b"a", 1_000)
    assert not uses.spend(b"a", 1_099)
    assert uses.spend(b"b", 1_099)
    assert not uses.spend(b"b", 1_198)
    assert not uses.spend(b"b", 500)
    assert not uses.spend(b"b", 501)
    assert uses.spend(b"b", 9_000)


def test_a_use_limit_of_0_is_none_and_remembers_nothing() -> None:
    uses = Uses(0, 100)
    assert all(uses.spend(b"a", 1) for _ in range(100))


def test_refusals_are_counted_and_told_at_1_2_4_8_without_a_word_of_the_token(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path)
    for _ in range(9):
        desk.identify(("tenant", "victim"))
    desk.gate.identify([[(TOKEN, token(OTHER))]] * 3, NOW_S)
    assert desk.gate.refused == {"client_set": 9, "forged_token": 3}
    assert len(desk.said) == 4
    assert "8 requests" in desk.said[-1]
    assert not any(word in line for line in desk.said for word in ("victim", "eyJ", "kkkk"))


def test_a_changed_key_file_is_read_again_and_an_unusable_one_leaves_the_keys(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path)
    old, new = (TOKEN, token(KEY)), (TOKEN, token(OTHER))
    assert (desk.identify(old).source, desk.identify(new).source) == ("gateway", "refused")
    replace_file(desk.file, KEY + b"\n" + OTHER)
    assert (desk.identify(old).source, desk.identify(new).source) == ("gateway", "gateway")
    replace_file(desk.file, OTHER)
    assert (desk.identify(old).source, desk.identify(new).source) == ("refused", "gateway")
    desk.said.clear()
    replace_file(desk.file, b"too short")
    assert [desk.identify(new).source for _ in range(3)] == ["gateway"] * 3
    desk.file.unlink()
    assert desk.identify(new).source == "gateway"
    (line,) = [line for line in desk.said if "keys read before" in line]
    assert "too short" not in line
    replace_file(desk.file, KEY)
    assert (desk.identify(old).source, desk.identify(new).source) == ("gateway", "refused")


def replace_file(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    os.replace(part, path)


def test_only_bare_requests_among_the_first_batches_are_the_servers_own(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(KEY)
    env = {"METER_IDENTITY": "gateway", "METER_GATEWAY_KEY_FILE": str(file)}
    config = {"model_warmup": [{"name": "a", "batch_size": 2}, {"name": "b", "count": 2}]}
    gate = gate_of({}, env, print, warm_ups_of(config))
    assert gate is not None
    batches: list[list[Pairs]] = [[[], []], [[("x", 1)]], [[]], [[]]]
    sources = [[i.source for i in gate.identify(batch, NOW_S)] for batch in batches]
    assert sources == [["none", "none"], ["refused"], ["none"], ["refused"]]
    assert warm_ups_of({}) == 0


def test_identity_is_open_unless_it_is_said() -> None:
    assert gate_of({}, {}, print) is None
    assert gate_of({"identity": "open"}, {"METER_IDENTITY": ""}, print) is None


def test_a_models_config_can_be_stricter_than_the_environment_and_not_laxer(
    tmp_path: Path,
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(KEY)
    keys = {"METER_GATEWAY_KEY_FILE": str(file)}
    tight = {"METER_IDENTITY": "gateway", **keys}
    lax = {"METER_IDENTITY_REFUSAL": "ignore", **keys}

    def rejects(given: dict[str, str], env: dict[str, str]) -> bool:
        gate = gate_of(given, env, print)
        assert gate is not None
        return gate.rejection_of(gate.identify([[]], NOW_S)[0]) is not None

    assert rejects({"identity": "open", "identity_refusal": "ignore"}, tight)
    assert rejects({"identity": "gateway"}, keys)
    assert not rejects({"identity": "gateway"}, lax)
    assert rejects({"identity": "gateway", "identity_refusal": "reject"}, lax)
    elsewhere = {"identity": "gateway", "gateway_key_file": str(file)}
    with pytest.raises(MeteringError, match="METER_GATEWAY_KEY_FILE"):
        gate_of(elsewhere, {}, print)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METER_IDENTITY", "gatway"),
        ("METER_IDENTITY_REFUSAL", "drop"),
        ("METER_GATEWAY_MAX_AGE_S", "0"),
        ("METER_GATEWAY_MAX_AGE_S", "5m"),
        ("METER_GATEWAY_MAX_USES", "-1"),
        ("METER_GATEWAY_KEY_FILE", "/nowhere/at/all"),
        ("METER_GATEWAY_KEY_FILE", "/"),
    ],
)
def test_a_setting_that_there_is_not_keeps_the_model_from_loading(
    tmp_path: Path, name: str, value: str
) -> None:
    setting = name.removeprefix("METER_").lower()
    with pytest.raises(MeteringError, match=f"^({name}|{setting})=.*{re.escape(value)}"):
        Desk(tmp_path, **{name: value})


@pytest.mark.parametrize("content", [b"", b"\n \n", b"s3cret", KEY + b"\ns3cret\n"])
def test_an_empty_or_short_key_keeps_the_model_from_loading_and_is_not_shown(
    tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(MeteringError, match="32 characters") as caught:
        Desk(tmp_path, content)
    assert "s3cret" not in str(caught.value)


def test_a_header_behind_the_bodys_twins_counts_in_whatever_spelling() -> None:
    text = (
        '{"x-meter-tenant":"s1","X-Meter-Tenant":"s2","x-METER-tenant":"s3","x-meter-tenant":"r"}'
    )
    assert identity_of(pairs_of(text)).tenant == "r"


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "[[1,2]]", "null", "7", '"x"', "{", "[" * 100_000, "1" * 5_000]
)
def test_what_is_no_object_has_no_parameters(text: str) -> None:
    assert list(pairs_of(text)) == []


def test_stripping_leaves_a_backend_its_own_parameters() -> None:
    given = {
        "temperature": 1,
        "Tenant": "a",
        "retry_of": "r",
        "X-Meter-Foo": 1,
        TOKEN: "t",
        "users": 2,
    }
    assert strip(given) == {"temperature": 1, "users": 2}


@pytest.mark.parametrize("tenant", ["x\0y", "a\u200db", " a", "x" * 257, True, [], "unattributed"])
def test_a_token_with_a_name_that_can_not_be_one_names_nobody(
    tmp_path: Path, tenant: object
) -> None:
    found = Desk(tmp_path).identify((TOKEN, token(tenant=tenant)))
    assert (found.tenant, found.source) == ("unattributed", "refused")
    assert found.refusal == "malformed_token"
    assert found.invalid.startswith("tenant: ")


def test_an_id_of_a_token_may_be_longer_than_a_name(tmp_path: Path) -> None:
    assert Desk(tmp_path).identify((TOKEN, token(jti="j" * 300))).source == "gateway"
