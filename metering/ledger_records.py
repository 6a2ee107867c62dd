"""A ledger as records of a compacted topic, and back: a head, and a record for each source.

What has changed is written in the transaction that writes what was decided; so the records of a
partition, read to their end, are the ledger as it was after one of its takes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from metering.epochs import Epoch
from metering.errors import MeteringError
from metering.ledger import Ledger
from metering.sequences import SequenceSet
from metering.sources import Source, Sources

FORMAT = 3
WHOLE_FORMAT = 2
"""Up to this one the head held all sources."""
HEAD = b"ledger"
"""A worker of the version before finds the head here, and refuses its format: it does not begin
with an empty ledger, which would count everything again."""
_SOURCE = b"source/"


def changed_records(ledger: Ledger) -> list[tuple[bytes, bytes | None]]:
    """Key and value of what has changed since this was last asked; no value: it is gone."""
    changed, gone = ledger.sources.take_changes()
    return [
        *((_key(name), _value(source)) for name, source in changed.items()),
        *((_key(name), None) for name in gone),
        (HEAD, _head(ledger)),
    ]


def ledger_of(records: Mapping[bytes, bytes]) -> Ledger:
    """Of the last value of each key. A ledger that was saved whole, by the version before, is read
    too, and all of it is written anew the next time.

    Raises:
        MeteringError: the records are of another format.
    """
    if HEAD not in records:
        return Ledger()
    head: dict[str, Any] = json.loads(zlib.decompress(records[HEAD]))
    if head["format"] == WHOLE_FORMAT:
        known = {name: _source(*found) for name, found in head["sources"].items()}
        sources = Sources(known, are_saved=False)
    elif head["format"] == FORMAT:
        sources = Sources(
            {
                _name(key): _source(*json.loads(value))
                for key, value in records.items()
                if key.startswith(_SOURCE)
            }
        )
    else:
        raise MeteringError(
            f"ledger format {head['format']!r} is neither {FORMAT} nor {WHOLE_FORMAT}: "
            "another version of the worker wrote it; start that version or a newer one"
        )
    return Ledger(
        sources=sources,
        watermark_ns=head["watermark_ns"],
        counted_to=head["counted_to"],
        takes=head["takes"],
        last_arrival_ns=head["last_arrival_ns"],
        epoch=Epoch(head.get("topic_id", ""), head.get("begin", 0)),
    )


def _head(ledger: Ledger) -> bytes:
    document = {
        "format": FORMAT,
        "watermark_ns": ledger.watermark_ns,
        "counted_to": ledger.counted_to,
        "takes": ledger.takes,
        "last_arrival_ns": ledger.last_arrival_ns,
        "topic_id": ledger.epoch.topic_id,
        "begin": ledger.epoch.begin,
    }
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 1)


def _key(name: str) -> bytes:
    return _SOURCE + name.encode("utf-8", "surrogatepass")


def _name(key: bytes) -> str:
    return key.removeprefix(_SOURCE).decode("utf-8", "surrogatepass")


def _value(source: Source) -> bytes:
    found = [source.last_ns, source.appended_ns, source.seen.intervals]
    return json.dumps(found, separators=(",", ":")).encode()


def _source(last_ns: int, appended_ns: int, intervals: list[list[int]]) -> Source:
    return Source(SequenceSet([(first, last) for first, last in intervals]), last_ns, appended_ns)
