"""Many usage events as columns: taken from them in one go, and held to every law at once.

What is found here is only whether all is plain and right. Where it is not, or there is any doubt,
the event has to be read as an object (``metering.usage_columns``), which says what is wrong with
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, get_args

import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from metering.columns import Coded, Distinct, Ints, Texts, coded
from metering.usage import (
    MAX_COUNT,
    MAX_ROWS,
    SUMMED,
    UNEXECUTED,
    IdentitySource,
    Operation,
    Outcome,
    TimingSource,
)
from metering.usage_columns import VERSION
from metering.usage_struct import Event, payer_in

MAX_EPOCH_NS = 2**63
_HEAD_INTS = (
    "sequence", "speedup", "batch_size", "wall_ns", "gpu_ns", "stalled_ns", "start_monotonic_ns",
    "end_epoch_ns",
)  # fmt: skip
_NAMES = (
    "source", "boot_id", "model", "model_version", "instance", "accelerator", "region",
    "deployment", "apportionment_rule",
)  # fmt: skip
_HEAD_KNOWN = ("overlap_ns", "prefill_ns", "decode_ns")
_INTS = (
    "rows", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "gpu_ns",
    "input_gpu_ns", "padding_gpu_ns",
)  # fmt: skip
_KNOWN = ("queue_ns", "prefill_gpu_ns", "decode_gpu_ns")
_CHOICES = {
    "operation": frozenset(get_args(Operation)), "status": frozenset(get_args(Outcome)),
    "identity_source": frozenset(get_args(IdentitySource)),
    "timing_source": frozenset(get_args(TimingSource)),
}  # fmt: skip


class NotPlain(Exception):
    """One of the events is wrong, or written in a way that only the objects' parser understands;
    never leaves the package."""


@dataclass(frozen=True, slots=True)
class Frame:
    """``batches`` has a row for each event, ``requests`` one for each request.

    The requests of event ``n`` are the ``counts[n]`` rows from ``starts[n]`` on; ``batch`` is the
    other way round. ``payers`` holds the distinct payers, ``requests["payer"]`` points into it.
    """

    batches: Mapping[str, Coded | Ints]
    requests: Mapping[str, Coded | Ints]
    request_ids: Distinct
    payers: Sequence[tuple[Any, ...]]
    starts: NDArray[np.intp]
    counts: NDArray[np.intp]
    batch: NDArray[np.intp]

    @classmethod
    def of(
        cls,
        batches: Mapping[str, Coded | Ints],
        requests: Mapping[str, Coded | Ints],
        request_ids: Distinct,
        payers: Sequence[tuple[Any, ...]],
        counts: NDArray[np.intp],
    ) -> Frame:
        starts = np.cumsum(counts) - counts
        batch = np.repeat(np.arange(len(counts)), counts)
        return cls(batches, requests, request_ids, payers, starts, counts, batch)

    def of_batch(self, name: str) -> NDArray[Any]:
        column = self.batches[name]
        return column.values if isinstance(column, Ints) else column.codes

    def of_request(self, name: str) -> NDArray[Any]:
        column = self.requests[name]
        return column.values if isinstance(column, Ints) else column.codes

    def take(self, events: NDArray[np.intp]) -> Frame:
        """Some of the events, by their places in ascending order."""
        kept = np.zeros(len(self.counts), np.bool_)
        kept[events] = True
        rows = np.flatnonzero(kept[self.batch])
        return Frame.of(
            {name: column.take(events) for name, column in self.batches.items()},
            {name: column.take(rows) for name, column in self.requests.items()},
            self.request_ids.take(rows),
            self.payers,
            self.counts[events],
        )


def frame_of(events: Sequence[Event]) -> Frame:
    """Of at least one event.

    Raises:
        NotPlain: see there.
    """
    try:
        frame = _read(events)
    except (ValueError, OverflowError) as exc:
        raise NotPlain from exc
    hold(frame)
    return frame


def sieve(events: Sequence[Event]) -> tuple[list[bool], Frame | None]:
    """Which of the events are plain and right, each for itself; and the frame, if all are."""
    if not events:
        return [], None
    try:
        frame = frame_of(events)
    except NotPlain:
        if len(events) == 1:
            return [False], None
        half = len(events) // 2
        return sieve(events[:half])[0] + sieve(events[half:])[0], None
    return [True] * len(events), frame


def _read(events: Sequence[Event]) -> Frame:
    heads = _transposed(events)
    columns = _transposed(heads["requests"])
    _plain([set(heads["columns"]) == {VERSION}])
    ids = columns["request_id"]
    counts = np.array([len(i) for i in ids], np.intp)
    _every(counts > 0)

    batches: dict[str, Coded | Ints] = {
        name: Ints(np.array(heads[name], np.int64)) for name in _HEAD_INTS
    }
    for name in _HEAD_KNOWN:
        batches[name] = _known(heads[name])
    for name in _NAMES:
        batches[name] = coded(heads[name])
    for name in ("device", "timing_source", "invalid"):
        batches[name] = coded(heads[name])
    batches["executed"] = Ints(np.array(heads["executed"], np.bool_))

    requests: dict[str, Coded | Ints] = {}
    for name in _INTS:
        requests[name] = Ints(_spread_ints(columns[name], counts))
    for name in _KNOWN:
        requests[name] = _spread_known(columns[name], counts)
    for name in ("operation", "status", "invalid"):
        requests[name] = _spread_coded(columns[name], counts)
    requests["payer"], payers = _payers(columns["payers"], columns["payer"], counts)
    request_ids = Texts(list(chain.from_iterable(ids)))
    return Frame.of(batches, requests, request_ids, payers, counts)


def _transposed(structs: Sequence[Any]) -> dict[str, tuple[Any, ...]]:
    """Each field of all of them."""
    fields = structs[0].__struct_fields__
    return dict(zip(fields, zip(*map(astuple, structs), strict=True), strict=True))


def hold(frame: Frame) -> None:
    """The laws of ``UsageBatch`` and ``RequestUsage``. Raises NotPlain: one is broken."""
    _hold_texts(frame)
    b, r = frame.of_batch, frame.of_request
    for name in ("sequence", "wall_ns", "gpu_ns", "stalled_ns"):
        _within(b(name), 0, MAX_COUNT)
    for name in ("start_monotonic_ns", "end_epoch_ns"):
        _within(b(name), 0, MAX_EPOCH_NS)
    for name in ("speedup", "batch_size"):
        _within(b(name), 1, MAX_ROWS)
    _within(r("rows"), 1, MAX_ROWS)
    for name in _INTS:
        _within(r(name), 0, MAX_COUNT)
    for name in _HEAD_KNOWN:
        _within(b(name), 0, MAX_COUNT)
    for name in _KNOWN:
        _within(r(name), 0, MAX_COUNT)
    _every(r("cached_input_tokens") <= r("input_tokens"))
    _every(r("reasoning_tokens") <= r("output_tokens"))
    _every(r("input_gpu_ns") <= r("gpu_ns"))
    _every(r("padding_gpu_ns") <= r("gpu_ns"))
    _every(_sums(frame, r("rows")) == b("batch_size"))
    _every(_sums(frame, r("gpu_ns")) == b("gpu_ns"))

    overlap = frame.batches["overlap_ns"]
    parts = b("overlap_ns") + b("stalled_ns") + b("gpu_ns")
    _every(~_is_known(overlap) | (parts == b("wall_ns")))
    _every(b("prefill_ns") + b("decode_ns") <= b("gpu_ns"))
    sums = {name: _sums(frame, r(name)) for name in SUMMED}
    for values in sums.values():
        _every(values < MAX_COUNT)
    for whole, part in (("prefill_ns", "prefill_gpu_ns"), ("decode_ns", "decode_gpu_ns")):
        _every(~_is_known(frame.batches[whole]) | (sums[part] == b(whole)))

    executed = b("executed")
    _every(executed | (b("gpu_ns") == 0))
    status = frame.requests["status"]
    assert isinstance(status, Coded)  # noqa: S101  # _read makes it so
    unexecuted = np.array([s in UNEXECUTED for s in status.values], np.bool_)[status.codes]
    _every(unexecuted != executed[frame.batch])


def _hold_texts(frame: Frame) -> None:
    columns = {**frame.batches, **frame.requests}
    for name in _NAMES:
        _plain(_values(columns[name]))
    for name in ("timing_source", "operation", "status"):
        _plain([set(_values(columns[name])) <= _CHOICES[name]])
    for tenant, _, _, _, source, _ in frame.payers:
        _plain([tenant, source in _CHOICES["identity_source"]])


def _values(column: Coded | Ints) -> Sequence[Any]:
    assert isinstance(column, Coded)  # noqa: S101  # whoever makes the frame makes it so
    return column.values


def _sums(frame: Frame, values: NDArray[Any]) -> NDArray[Any]:
    """Raises NotPlain: they might not fit into 64 bits."""
    _every(np.add.reduceat(values.astype(np.float64), frame.starts) < 2.0**60)
    sums: NDArray[Any] = np.add.reduceat(values, frame.starts)
    return sums


def _is_known(column: Coded | Ints) -> NDArray[np.bool_]:
    assert isinstance(column, Ints)  # noqa: S101  # _read makes it so
    return np.ones(len(column.values), np.bool_) if column.known is None else column.known


def _plain(facts: Any) -> None:
    if not all(facts):
        raise NotPlain


def _every(facts: NDArray[Any]) -> None:
    if not facts.all():
        raise NotPlain


def _within(values: NDArray[Any], least: int, below: int) -> None:
    if values.min() < least or int(values.max()) >= below:
        raise NotPlain


def _known(values: Sequence[Any]) -> Ints:
    """0 where there is none."""
    missing = values.count(None)
    if not missing:
        return Ints(np.array(values, np.int64))
    if missing == len(values):
        return Ints(np.zeros(len(values), np.int64), np.zeros(len(values), np.bool_))
    known = np.array([v is not None for v in values], np.bool_)
    return Ints(np.array([0 if v is None else v for v in values], np.int64), known)


def _spread(found: Sequence[Any], counts: NDArray[np.intp]) -> list[Any]:
    """One entry for each request. Raises NotPlain: a column is too long or too short."""
    flat: list[Any] = []
    for value, count in zip(found, counts.tolist(), strict=True):
        if type(value) is list:
            if len(value) != count:
                raise NotPlain
            flat += value
        else:
            flat += repeat(value, count)
    return flat


def _spread_ints(found: Sequence[Any], counts: NDArray[np.intp]) -> NDArray[np.int64]:
    if list not in set(map(type, found)):
        return np.repeat(np.array(found, np.int64), counts)
    return np.array(_spread(found, counts), np.int64)


def _spread_known(found: Sequence[Any], counts: NDArray[np.intp]) -> Ints:
    if list not in set(map(type, found)):
        few = _known(list(found))
        known = None if few.known is None else np.repeat(few.known, counts)
        return Ints(np.repeat(few.values, counts), known)
    return _known(_spread(found, counts))


def _spread_coded(found: Sequence[Any], counts: NDArray[np.intp]) -> Coded:
    if list in set(map(type, found)):
        return coded(_spread(found, counts))
    few = coded(found)
    return Coded(few.values, np.repeat(few.codes, counts))


def _payers(
    given: Sequence[list[Any]], places: Sequence[Any], counts: NDArray[np.intp]
) -> tuple[Ints, list[tuple[Any, ...]]]:
    texts = coded(list(map(bytes, chain.from_iterable(given))))
    distinct = coded([payer_in(text) for text in texts.values])
    sizes = np.array([len(g) for g in given], np.intp)
    own = _spread_ints(places, counts)
    _every((own >= 0) & (own < np.repeat(sizes, counts)))
    codes = texts.codes[own + np.repeat(np.cumsum(sizes) - sizes, counts)]
    return Ints(distinct.codes[codes].astype(np.intp)), list(distinct.values)
