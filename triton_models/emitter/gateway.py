"""Trusted-gateway mode: only what a gateway has signed says who pays.

To a backend a forwarded header and a parameter of the body look the same, so the name of either
proves nothing. The gateway therefore says who pays in a signed token (``gateway_token``), in the
header ``x-meter-gateway-token``. Whoever lacks the key can neither make a token nor add a field to
one; who has seen a token can use it for some minutes, some times, as that tenant. Time is passed
in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from metering.errors import MeteringError
from metering.names import clean, fault_of
from metering.usage import UNATTRIBUTED
from triton_models.emitter.gateway_token import LEEWAY_S, Untrusted, verify
from triton_models.emitter.identity import (
    FIELDS,
    Identity,
    Pairs,
    Refusal,
    header_field,
    is_given,
    named,
)

TOKEN_HEADER = "x-meter-gateway-token"  # noqa: S105  # the header's name
MIN_KEY_LENGTH = 32
_KEY_FILE = "METER_GATEWAY_KEY_FILE"
_TOKEN_FIELD = header_field(TOKEN_HEADER)
_PAYER = frozenset(FIELDS) - {"retry_of"}
_CLIENT_SET: Refusal = "client_set"
NOBODY = Identity(UNATTRIBUTED, "", "", "", None, "refused")
_THE_SERVER = Identity(UNATTRIBUTED, "", "", "", None, "none")


class KeyFile:
    """The gateway's keys, one a line: with two, one can be replaced by the other without a gap.

    Read again when the file changes; a file that can no longer be used leaves the keys in force.

    Raises:
        MeteringError: the file can't be used to begin with; no message has any part of a key.
    """

    def __init__(self, path: Path, log: Callable[[str], None]) -> None:
        self._path = path
        self._log = log
        self._complained = False
        self._stamp = self._look()
        self._keys = self._read()

    def keys(self) -> Sequence[bytes]:
        try:
            if (stamp := self._look()) != self._stamp:
                self._keys = self._read()
                self._stamp = stamp
            self._complained = False
        except MeteringError as exc:
            if not self._complained:
                self._log(f"{exc}; the keys read before stay in force")
            self._complained = True
        return self._keys

    def _look(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError as exc:
            raise MeteringError(f"{_KEY_FILE}={self._path}: {exc.strerror}") from exc
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> Sequence[bytes]:
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError as exc:
            raise MeteringError(f"{_KEY_FILE}={self._path}: {exc.strerror}") from exc
        keys = [line.strip() for line in lines if line.strip()]
        if not keys or any(len(key) < MIN_KEY_LENGTH for key in keys):
            raise MeteringError(
                f"{_KEY_FILE}={self._path}: a key on each line is wanted, and of at least "
                f"{MIN_KEY_LENGTH} characters"
            )
        return keys


class Uses:
    """How often each token was used, remembered for at least ``window_s``. A limit of 0 is none.

    Only tokens with a sound signature are counted, so only the gateway can fill the memory.
    """

    def __init__(self, limit: int, window_s: int) -> None:
        self._limit = limit
        self._window_s = window_s
        self._since_s = -math.inf
        self._now: dict[bytes, int] = {}
        self._before: dict[bytes, int] = {}

    def spend(self, mac: bytes, now_s: float) -> bool:
        """Count a use; ``False`` if there was none left."""
        if self._limit == 0:
            return True
        age_s = now_s - self._since_s
        if age_s < -self._window_s:  # The clock was set back: the window begins anew.
            self._since_s = now_s
        elif age_s >= self._window_s:
            self._before = self._now if age_s < 2 * self._window_s else {}
            self._now, self._since_s = {}, now_s
        used = self._now.get(mac) or self._before.get(mac, 0)
        if used >= self._limit:
            return False
        self._now[mac] = used + 1
        return True


class Gate:
    """Identity as the gateway's tokens have it; one per model instance.

    What becomes of a request without a sound token: with ``rejects`` an error response, else it
    is served on nobody's account. What a client says beside a sound token never changes who pays:
    the request is rejected for it, or served on the token's account.

    The first ``warm_ups`` batches are the server's own, before the model is reachable; a server
    whose warm-up is rejected does not load the model.
    """

    def __init__(
        self,
        keys: KeyFile,
        *,
        rejects: bool,
        max_age_s: int,
        max_uses: int,
        log: Callable[[str], None],
        warm_ups: int = 0,
    ) -> None:
        self._keys = keys
        self._warm_ups = warm_ups
        self._rejects = rejects
        self._max_age_s = max_age_s
        self._uses = Uses(max_uses, max_age_s + LEEWAY_S)
        self._log = log
        self.refused: Counter[Refusal] = Counter()

    def identify(self, batch: Sequence[Pairs], now_s: float) -> list[Identity]:
        """The identity of each request of a batch; ``now_s`` is of the epoch."""
        if self._warm_ups > 0:
            self._warm_ups -= 1
            if not any(batch):
                return [_THE_SERVER] * len(batch)
        keys = self._keys.keys()
        found = [self._identify(pairs, keys, now_s) for pairs in batch]
        before = self.refused.total()
        self.refused.update(i.refusal for i in found if i.refusal is not None)
        after = self.refused.total()
        if before.bit_length() != after.bit_length():  # 1, 2, 4, 8 …: loud, but never a flood
            reasons = ", ".join(f"{name} {count}" for name, count in self.refused.most_common())
            self._log(f"identity was refused to {after} requests so far: {reasons}")
        return found

    def rejection_of(self, identity: Identity) -> str | None:
        """What the client is told, if its request is not to be served."""
        if identity.refusal is None or not self._rejects:
            return None
        return (
            f"identity refused ({identity.refusal}): tenant, team, project and user are taken "
            f"from the gateway's {TOKEN_HEADER} alone"
        )

    def _identify(self, pairs: Pairs, keys: Sequence[bytes], now_s: float) -> Identity:
        said = [(header_field(name), value) for name, value in pairs]
        tokens = [value for field, value in said if field == _TOKEN_FIELD]
        headers = [(f, value) for f, value in said if f is not None and f != _TOKEN_FIELD]
        bare = any(name.strip().lower() in _PAYER for name, _ in pairs)
        if not tokens:
            return NOBODY._replace(refusal=_CLIENT_SET if bare or headers else "unproven")
        try:
            # The last one: headers come after the body.
            claims, mac = verify(tokens[-1], keys, now_s=now_s, max_age_s=self._max_age_s)
        except Untrusted as exc:
            return NOBODY._replace(refusal=exc.refusal)
        signed = named(claims, "gateway")
        if signed.invalid:
            return NOBODY._replace(refusal="malformed_token", invalid=signed.invalid)
        # A gateway may send the plain headers too, as long as they say the same.
        contradicted = any(
            field not in FIELDS or fault_of(value) or clean(claims.get(field)) != clean(value)
            for field, value in headers
            if is_given(value.strip(" ") if isinstance(value, str) else value)
        )
        refusal = _CLIENT_SET if bare or contradicted or len(tokens) > 1 else None
        if refusal is not None and self._rejects:
            return NOBODY._replace(refusal=refusal)
        if not self._uses.spend(mac, now_s):
            return NOBODY._replace(refusal="used_token")
        if signed.retry_of is None:
            said_of = named({"retry_of": dict(pairs).get("retry_of")}, "none")
            signed = signed._replace(retry_of=said_of.retry_of, invalid=said_of.invalid)
        return signed._replace(refusal=refusal)


def gate_of(
    given: Mapping[str, str],
    env: Mapping[str, str],
    log: Callable[[str], None],
    warm_ups: int = 0,
) -> Gate | None:
    """From the parameters in a model's config and the environment; ``None``: identity is open.

    A config may be stricter than the environment and never laxer, and the keys are the
    environment's alone: whoever can load a model under a config of his own is not let in by it.

    Raises:
        MeteringError: a value that there is not, or no key that can be used: then the model must
            not load, for it would serve as if there were no gateway.
    """
    mode = _stricter("identity", ("open", "gateway"), "open", given, env)
    refusal = _stricter("identity_refusal", ("ignore", "reject"), "reject", given, env)
    if mode == "open":
        return None
    if not (path := env.get(_KEY_FILE)):
        raise MeteringError(f"METER_IDENTITY=gateway wants {_KEY_FILE}")
    return Gate(
        KeyFile(Path(path), log),
        rejects=refusal == "reject",
        max_age_s=_whole("METER_GATEWAY_MAX_AGE_S", env, 300, at_least=1),
        max_uses=_whole("METER_GATEWAY_MAX_USES", env, 16, at_least=0),
        log=log,
        warm_ups=warm_ups,
    )


def _stricter(
    name: str,
    values: tuple[str, str],
    default: str,
    given: Mapping[str, str],
    env: Mapping[str, str],
) -> str:
    own = env.get(f"METER_{name.upper()}") or default
    asked = (own, given.get(name) or own)
    for value in asked:
        if value not in values:
            raise MeteringError(f"{name}={value!r} is none of {values}")
    return max(asked, key=values.index)


def _whole(name: str, env: Mapping[str, str], default: int, at_least: int) -> int:
    text = env.get(name) or str(default)
    if not (text.isascii() and text.isdecimal()) or int(text) < at_least:
        raise MeteringError(f"{name}={text!r} is not a whole number from {at_least} on")
    return int(text)
