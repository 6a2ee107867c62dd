"""Totals as records of a compacted topic, and back: a chunk of a window each, and a head.

What has changed is written, together with the rows that tell of it and in one transaction; so the
records of a partition, read to their end, are the totals as they were after one of its messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import astuple

import numpy as np

from metering.additions import TALLY, Mark
from metering.epochs import Epoch
from metering.errors import MeteringError
from metering.priced import completed
from metering.totals import Totals
from metering.window_sums import CHUNK, WindowSums, Words, capped, words_of
from metering.windows import Cohort, WindowKey

FORMAT = 2
_FIRST = 1
"""Its words had ``_FIRST_BASE``, and the sums of priced requests were missing."""
_FIRST_BASE = 10**9
HEAD = b"head"


def changed_records(totals: Totals) -> Iterator[tuple[bytes, bytes | None]]:
    """Key and value of what has changed since this was last asked; no value: it is gone."""
    for key, chunks in totals.gone:
        for chunk in range(chunks):
            yield _key(key, chunk), None
    totals.gone.clear()
    for key, window in totals.windows.items():
        for chunk, cohorts, words in window.unsaved():
            yield _key(key, chunk), _value(window.final, cohorts, words)
    yield HEAD, _head(totals)


def totals_of(records: Mapping[bytes, bytes]) -> Totals:
    """Of the last value of each key.

    Raises:
        MeteringError: they are of another format, or a chunk is missing.
    """
    totals = Totals()
    if HEAD in records:
        _read_head(totals, records[HEAD])
    chunks: dict[WindowKey, dict[int, tuple[bool, list[Cohort], Words]]] = {}
    for name, value in records.items():
        if name != HEAD:
            seconds, start_s, chunk = map(int, name.split(b"/"))
            chunks.setdefault(WindowKey(start_s, seconds), {})[chunk] = _read(value)
    for key, found in chunks.items():
        totals.windows[key] = _window(key, [found.get(n) for n in range(max(found) + 1)])
    return totals


def _key(key: WindowKey, chunk: int) -> bytes:
    return f"{key.seconds}/{key.start_s}/{chunk}".encode()


def _value(final: bool, cohorts: list[Cohort], words: Words) -> bytes:
    """A line of JSON, then the words as they lie in memory, little-endian."""
    line = json.dumps([FORMAT, final, len(TALLY), cohorts], separators=(",", ":"))
    return line.encode() + b"\n" + words.astype("<i8").tobytes()


def _read(value: bytes) -> tuple[bool, list[Cohort], Words]:
    line, _, raw = value.partition(b"\n")
    made, final, fields, cohorts = json.loads(line)
    if made not in (_FIRST, FORMAT) or fields > len(TALLY):
        raise MeteringError(f"totals of format {made!r} with {fields} fields, not {FORMAT}")
    found = np.frombuffer(raw, "<i8").reshape(len(cohorts), fields, 2)
    if made == _FIRST:
        words = _of_first(found)
    else:
        words = np.zeros((len(cohorts), len(TALLY), 2), np.int64)
        words[:, :fields] = found
    return final, [(c[0], c[1], c[2]) for c in cohorts], words


def _of_first(found: Words) -> Words:
    """A sum that is larger than can be stored stopped the version that saved it."""
    sums = found[..., 1].astype(object) * _FIRST_BASE + found[..., 0]
    return capped(words_of(completed(list(sums.T), TALLY)))


def _window(key: WindowKey, chunks: list[tuple[bool, list[Cohort], Words] | None]) -> WindowSums:
    whole = [c for c in chunks if c is not None]
    if len(whole) < len(chunks) or any(len(c[1]) < CHUNK for c in whole[:-1]):
        raise MeteringError(f"a chunk of the window {key} is missing")
    window = WindowSums(
        [cohort for _, cohorts, _ in whole for cohort in cohorts],
        np.concatenate([words for _, _, words in whole]),
    )
    if whole[0][0]:
        window.was_told()
    return window


def _head(totals: Totals) -> bytes:
    document = {
        "format": FORMAT,
        "counted_to": totals.counted_to,
        "horizon_ns": totals.horizon_ns,
        "topic_id": totals.epoch.topic_id,
        "begin": totals.epoch.begin,
        "marks": [astuple(mark) for mark in totals.marks.values()],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _read_head(totals: Totals, value: bytes) -> None:
    document = json.loads(value)
    if document["format"] not in (_FIRST, FORMAT):
        raise MeteringError(f"totals of format {document['format']!r}, not {FORMAT}")
    totals.counted_to = document["counted_to"]
    totals.horizon_ns = document["horizon_ns"]
    totals.epoch = Epoch(document.get("topic_id", ""), document.get("begin", 0))
    totals.marks = {m[0]: Mark(*m) for m in document["marks"]}
