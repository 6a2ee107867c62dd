"""The requests of a record, each checked for itself. Pure.

What is invalid about a request is said in its ``invalid``, and counts as 0 or as not told; its
batch mates are not touched. So no value of one request makes a batch's GPU time nobody's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from operator import le
from typing import Any, NamedTuple, get_args

from metering.apportion import Turn, Work
from metering.errors import MeteringError
from metering.names import MAX_LENGTH, clean, fault_of, mended
from metering.records import Asked, Took
from metering.usage import MAX_COUNT, MAX_ROWS, UNATTRIBUTED, IdentitySource, Outcome, shown

_OUTCOMES = frozenset(get_args(Outcome))
_SOURCES = frozenset(get_args(IdentitySource))
_COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "rows")
"""In the order of ``Row``'s fields."""
_NOBODY = (UNATTRIBUTED, "", "", "", None, "refused")
_MOST_DIGITS = 20
_NO_NUMBER = object()


class Row(NamedTuple):
    """One request. ``payer`` is ``(tenant, team, project, user, retry_of, identity_source)``."""

    request_id: str
    payer: Sequence[Any]
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    rows: int
    status: Any
    row_tokens: tuple[tuple[int, int], ...] = ()
    turns: tuple[Turn, ...] = ()
    queue_ns: int | None = None
    invalid: str = ""

    @property
    def work(self) -> Work:
        """Cached input tokens cost no prefill, so they bear no weight."""
        uncached = self.input_tokens - self.cached_input_tokens
        return Work(uncached, self.output_tokens, self.rows, self.row_tokens, self.turns)


def text_of(faults: Sequence[str]) -> str:
    """Faults as the field ``invalid`` has them."""
    text = "; ".join(faults)
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."


def rows_of(asked: Asked, took: Took, batch_faults: list[str]) -> list[Row]:
    """The requests; what belongs to none of them is added to ``batch_faults``.

    Raises:
        MeteringError: there are no requests, or no list of them.
    """
    if not isinstance(asked.requests, list) or not asked.requests:
        raise MeteringError(f"requests={shown(asked.requests)}: want a list of their ids")
    return _Reader(asked, took, batch_faults).rows()


class _Reader:
    def __init__(self, asked: Asked, took: Took, batch_faults: list[str]) -> None:
        self._asked, self._took, self._batch_faults = asked, took, batch_faults
        self._count = len(asked.requests)
        self._faults: dict[int, list[str]] = defaultdict(list)
        self._payers: dict[int, tuple[Sequence[Any], str]] = {}

    def rows(self) -> list[Row]:
        inputs, cached, outputs, reasoning, rows = (
            self._counts(name, getattr(self._took, name)) for name in _COUNTS
        )
        self._limit_sum("input_tokens", inputs, MAX_COUNT)
        self._limit_sum("output_tokens", outputs, MAX_COUNT)
        self._limit_sum("rows", rows, MAX_ROWS)
        self._parts_within("cached_input_tokens", cached, "input_tokens", inputs)
        self._parts_within("reasoning_tokens", reasoning, "output_tokens", outputs)
        status = self._status(self._took.status)
        ids = [clean(name) for name in self._asked.requests]
        for n, given in enumerate(self._asked.requests):
            if not ids[n] and (fault := fault_of(given)):
                self._faults[n].append(f"request_id: {fault}")
        columns = (inputs, cached, outputs, reasoning, rows)
        found = [
            Row(name, payer, tokens_in, part, tokens_out, reasoned, own, status)
            for name, payer, tokens_in, part, tokens_out, reasoned, own in zip(
                ids, self._who_pays(), *columns, strict=True
            )
        ]
        self._add_more(found)
        self._drop_contradicted_turns(found)
        if status != self._took.status:
            self._batch_faults.append(f"status={shown(self._took.status)} is no outcome")
        for n, faults in self._faults.items():
            found[n] = found[n]._replace(invalid=text_of(faults))
        return found

    def _column(self, name: str, column: Any) -> list[Any]:
        """An entry for each request; in a column of another length, nobody knows whose is what."""
        if not isinstance(column, list):
            return [column] * self._count
        if len(column) == self._count:
            return column
        fault = f"{name} has {len(column)} entries for {self._count} requests"
        for n in range(self._count):
            self._faults[n].append(fault)
        return [_NO_NUMBER] * self._count

    def _counts(self, name: str, given: Any) -> list[int]:
        least, below = (1, MAX_ROWS) if name == "rows" else (0, MAX_COUNT)
        column = self._column(name, given)
        if set(map(type, column)) == {int} and least <= min(column) and max(column) < below:
            return column
        found = []
        for n, value in enumerate(column):
            sound = type(value) is int and least <= value < below
            found.append(value if sound else least)
            if not sound and value is not _NO_NUMBER:
                fault = f"{name}={shown(value)} is no integer from {least} to {below - 1}"
                self._faults[n].append(fault)
        return found

    def _parts_within(self, part: str, parts: list[int], whole: str, wholes: list[int]) -> None:
        if all(map(le, parts, wholes)):
            return
        for n in range(self._count):
            if parts[n] > wholes[n]:
                if not any(f.startswith(whole) for f in self._faults[n]):
                    self._faults[n].append(f"{part}={parts[n]} exceeds {whole}={wholes[n]}")
                parts[n] = wholes[n] = 0

    def _limit_sum(self, name: str, column: list[int], below: int) -> None:
        if sum(column) < below:
            return
        for n, own in enumerate(column):
            if own * self._count >= below:
                self._faults[n].append(f"{name}={own}: a batch has fewer than {below}")
                column[n] = int(name == "rows")

    def _status(self, given: Any) -> Any:
        return given if isinstance(given, str) and given in _OUTCOMES else "ok"

    def _who_pays(self) -> list[Sequence[Any]]:
        places = self._column("payer", self._asked.payer)
        found = []
        for n, place in enumerate(places):
            payer, fault = self._payer(place)
            found.append(payer)
            if fault and place is not _NO_NUMBER:
                self._faults[n].append(fault)
        return found

    def _payer(self, place: Any) -> tuple[Sequence[Any], str]:
        payers = self._asked.payers
        if type(place) is not int or not isinstance(payers, list) or not 0 <= place < len(payers):
            return _NOBODY, f"payer={shown(place)} is no place among the payers"
        if place not in self._payers:
            self._payers[place] = _payer_in(payers[place])
        return self._payers[place]

    def _add_more(self, found: list[Row]) -> None:
        if not isinstance(self._took.more, dict):
            self._batch_faults.append(f"more={shown(self._took.more)} is no object")
            return
        for position, more in self._took.more.items():
            is_place = position.isascii() and position.isdecimal() and len(position) < _MOST_DIGITS
            n = int(position) if is_place else self._count
            if n >= self._count or not isinstance(more, dict):
                self._batch_faults.append(f"more: {shown(position)} is no request")
                continue
            found[n] = found[n]._replace(**self._told(n, more, found[n]))

    def _told(self, n: int, more: dict[str, Any], row: Row) -> dict[str, Any]:
        told: dict[str, Any] = {}
        faults = self._faults.get(n, [])
        status = more.get("status", row.status)
        told["status"] = self._status(status)
        if told["status"] != status:
            told["status"] = row.status
            faults.append(f"status={shown(status)} is no outcome")
        queue_ns = more.get("queue_ns")
        if queue_ns is not None and not _are_counts([queue_ns]):
            faults.append(f"queue_ns={shown(queue_ns)} is no integer from 0 to {MAX_COUNT - 1}")
            queue_ns = None
        told["queue_ns"] = queue_ns
        row_tokens = _tuples("row_tokens", more.get("row_tokens") or [], 2, faults)
        if row_tokens and len(row_tokens) != row.rows:
            faults.append(f"row_tokens has {len(row_tokens)} entries for rows={row.rows}")
            row_tokens = []
        told["row_tokens"] = tuple(row_tokens)
        turns = _tuples("turns", more.get("turns") or [], len(Turn._fields), faults)
        told["turns"] = tuple(Turn(*turn) for turn in turns)
        if faults:
            self._faults[n] = faults
        return told

    def _drop_contradicted_turns(self, found: list[Row]) -> None:
        """A step took one time: who tells it otherwise than another has turns that say nothing."""
        durations_ns: dict[int, set[int]] = defaultdict(set)
        for row in found:
            for turn in row.turns:
                durations_ns[turn.step].add(turn.step_ns)
        for n, row in enumerate(found):
            for turn in row.turns:
                if len(told_ns := durations_ns[turn.step]) > 1:
                    fault = f"turns: step {turn.step} took {turn.step_ns} and "
                    fault += f"{next(ns for ns in sorted(told_ns) if ns != turn.step_ns)} ns"
                    self._faults[n].append(fault)
                    found[n] = row._replace(turns=())
                    break


def _payer_in(given: Any) -> tuple[Sequence[Any], str]:
    """The payer, and what is wrong with it: what its server said, or what is found here."""
    if not isinstance(given, list) or len(given) < len(_NOBODY):
        return _NOBODY, f"payer={shown(given)}: want tenant, team, project, user, retry_of, source"
    tenant, *others, source = given[: len(_NOBODY)]
    texts = [tenant, *("" if text is None else text for text in others)]
    sound = all(isinstance(text, str) and len(text) <= MAX_LENGTH for text in texts)
    if not sound or not tenant or not isinstance(source, str) or source not in _SOURCES:
        return _NOBODY, f"payer={shown(given)}: a name is wrong"
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return _NOBODY, f"payer={shown(given)}: a name is no UTF-8"
    said = given[7] if len(given) > 7 and isinstance(given[7], str) else ""
    return (*texts[:4], others[3], source), mended(said)


def _are_counts(values: Sequence[Any]) -> bool:
    return all(type(value) is int and 0 <= value < MAX_COUNT for value in values)


def _tuples(name: str, given: Any, size: int, faults: list[str]) -> list[tuple[int, ...]]:
    """Each with ``size`` counts; none of them, if one is wrong."""
    if not isinstance(given, list):
        faults.append(f"{name}={shown(given)} is no list")
        return []
    for one in given:
        if not isinstance(one, list) or len(one) != size or not _are_counts(one):
            faults.append(f"{name}: {shown(one)} are no {size} integers from 0 on")
            return []
    return [tuple(one) for one in given]
