"""What a server writes down of a batch. Pure.

A server has no time to spare: it writes what only it knows, in a form that costs it little. Whoever
brings the record to Kafka works out the rest (``metering.finishing``).

A record is one JSON object: ``"record": 1``, the fields of ``UsageBatch`` that are the same for
every batch of an instance with its apportionment ``rule``, the batch's numbers (``Timing``), and
its requests, column by column (``Asked`` and ``Took``).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from metering.names import mended

VERSION = 1
_MARK = b'{"record":'
_ENDLESS = 2**64
_SHOWN = 80
_DEEPEST = 6
CONSTANT = (
    "source", "boot_id", "model", "model_version", "instance", "accelerator", "device", "region",
    "deployment", "speedup",
)  # fmt: skip


class RuleRecipe(NamedTuple):
    """A rule of this package by name and version, with its coefficients."""

    name: str
    coefficients_ps: tuple[tuple[str, int], ...] = ()
    calibration: str | None = None
    version: int = 2


class Timing(NamedTuple):
    """A batch on the monotonic clock, and what its device says of it.

    ``share_ns`` is what of the wall time is the batch's own where instances overlap; ``device_ns``
    is how long the device worked by its own clock; ``prefill_ns`` and ``decode_ns`` are what the
    model told, on the monotonic clock. ``None``: not known.
    """

    start_ns: int
    end_ns: int
    end_epoch_ns: int
    share_ns: int | None = None
    device_ns: int | None = None
    prefill_ns: int | None = None
    decode_ns: int | None = None


class Asked(NamedTuple):
    """Who asked: known before the batch is executed.

    ``payer`` points, for each request, into ``payers``, which begin with
    ``[tenant, team, project, user, retry_of, identity_source]``. Behind a gateway's refusal, which
    comes next, stands what is wrong with a name that was given.
    """

    requests: Sequence[str]
    payers: Sequence[Sequence[str | None]]
    payer: Sequence[int]


class Took(NamedTuple):
    """What became of the requests. A column has an entry for each, or is one value for all.

    ``more`` has, by position, what few have to tell: ``status`` where it is another,
    ``row_tokens``, ``turns``, ``queue_ns``.
    """

    input_tokens: Sequence[int] | int
    cached_input_tokens: Sequence[int] | int
    output_tokens: Sequence[int] | int
    reasoning_tokens: Sequence[int] | int
    rows: Sequence[int] | int = 1
    status: str = "ok"
    more: Mapping[str, Mapping[str, Any]] = {}


def is_record(payload: bytes | memoryview) -> bool:
    return bytes(payload[: len(_MARK)]) == _MARK


def encode_head(constant: Mapping[str, Any], operation: str, rule: RuleRecipe | None) -> bytes:
    """The beginning of every record of an instance. ``constant`` has the fields of ``UsageBatch``
    that do not change. Without a ``rule`` it has to be given to :func:`usage_of_payload`."""
    document = {
        "record": VERSION,
        **{name: constant[name] for name in CONSTANT},
        "operation": operation,
        "rule": rule and [rule.name, rule.version, dict(rule.coefficients_ps), rule.calibration],
    }
    return to_json(document)[:-1]


def encode_asked(asked: Asked) -> bytes:
    """A part of a record. Raises ValueError: a text is no UTF-8."""
    return join_asked(asked.requests, [encode_payer(p) for p in asked.payers], asked.payer)


def encode_payer(payer: Sequence[str | None]) -> bytes:
    """One of the payers of :func:`join_asked`; the same one always comes out the same."""
    return to_json(payer)


def join_asked(requests: Sequence[str], payers: Sequence[bytes], payer: Sequence[int]) -> bytes:
    """:func:`encode_asked` of payers that are encoded already."""
    joined = b",".join(payers)
    return b'"requests":%b,"payers":[%b],"payer":%b' % (to_json(requests), joined, to_json(payer))


def encode_record(head: bytes, sequence: int, timing: Timing, asked: bytes, took: Took) -> bytes:
    """Nothing is checked here: the event made of it is. What is no number is written as it is, or
    as a text that shows it, so that the event can say so."""
    start_ns, end_ns, end_epoch_ns, share_ns, device_ns, prefill_ns, decode_ns = timing
    inputs, cached, outputs, reasoning, rows, status, more = took
    rest = {
        "sequence": sequence,
        "start_ns": start_ns,
        "end_ns": end_ns,
        "end_epoch_ns": end_epoch_ns,
        "share_ns": share_ns,
        "device_ns": device_ns,
        "prefill_ns": prefill_ns,
        "decode_ns": decode_ns,
        "input_tokens": inputs,
        "cached_input_tokens": cached,
        "output_tokens": outputs,
        "reasoning_tokens": reasoning,
        "rows": rows,
        "status": status,
        "more": more,
    }
    columns = (inputs, cached, outputs, reasoning, rows)
    if more or not all(map(_are_plain, (*columns, prefill_ns, decode_ns))):
        rest = plain(rest)
    return b"%b,%b,%b" % (head, asked, to_json(rest)[1:])


def plain(value: Any, depth: int = 0) -> Any:  # noqa: PLR0911  # a way for each kind
    """A value as JSON can have it, whatever it is: NumPy's numbers are numbers, and what is none of
    JSON's is a text that shows it."""
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is int:
        return value if abs(value) < _ENDLESS else "an integer of more than 64 bits"
    if isinstance(value, str):
        return mended(value[:_SHOWN])
    if isinstance(value, dict | list | tuple) and depth < _DEEPEST:
        if isinstance(value, dict):
            return {plain(str(name)): plain(own, depth + 1) for name, own in value.items()}
        return [plain(own, depth + 1) for own in value]
    for read in (operator.index, _number_of_numpy, _text_of):
        try:
            return plain(read(value))
        except Exception:  # noqa: BLE001, S112  # it is somebody's
            continue
    return f"a {type(value).__name__}"


def _are_plain(column: Any) -> bool:
    """Whether they are integers that JSON's readers take, or there is none."""
    if type(column) is int:
        return -_ENDLESS < column < _ENDLESS
    if not isinstance(column, list | tuple):
        return column is None
    whole = set(map(type, column)) <= {int}
    return whole and (not column or (min(column) > -_ENDLESS and max(column) < _ENDLESS))


def _number_of_numpy(value: Any) -> float | bool:
    number = value.item()
    if type(number) not in (bool, float):
        raise TypeError
    return number  # type: ignore[no-any-return]  # it is one of them


def _text_of(value: Any) -> str:
    return f"{value!r:.{_SHOWN}}"
