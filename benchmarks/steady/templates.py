"""Usage messages that were encoded beforehand by the shipper's own function: what is left to do for
each is to fill in its sequence, its times and its requests' ids. That takes some microseconds, so
that whoever sends 625 a second hardly uses the cores that are measured.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from pydantic_core import from_json, to_json

from benchmarks.stream.events import MODELS, REGIONS, Source, all_sources, batch, encode
from metering.costs import WindowRow

COHORT = tuple(name for name in ("tenant", "model", "region") if name in WindowRow.model_fields)
"""By what windows are counted."""
COHORTS_OF_TENANT = len(MODELS) * (len(REGIONS) if "region" in COHORT else 1)
FEWEST = 400
_SEQUENCE, _START, _END = (7_770_000_000_000_000_001 + n for n in range(3))
_ID = b"@@@@@@@@"
_ID_CHARACTERS = len(_ID)
_AT_NS = 1_780_000_000 * 10**9


@dataclass(frozen=True, slots=True)
class Template:
    """A message of one source. ``tenants`` has one entry for each request."""

    source: Source
    tenants: tuple[str, ...]
    body: bytes
    wall_ns: int

    def filled(self, sequence: int, end_ns: int, word: int) -> bytes:
        """``word`` begins all of its requests' ids."""
        body = self.body % (sequence, end_ns - self.wall_ns, end_ns)
        return body.replace(_ID, b"%08x" % (word & 0xFFFFFFFF))

    def cohort(self, tenant: str) -> tuple[str, ...]:
        named = {"tenant": tenant, "model": self.source.model, "region": self.source.region}
        return tuple(named[name] for name in COHORT)


def tenants_for(cohorts: int) -> int:
    """As many tenants as make so many cohorts, each with every model in every region."""
    return max(1, round(cohorts / COHORTS_OF_TENANT))


def templates(tenants: int, batch_size: int, seed: int) -> list[Template]:
    """Of all sources in turn. As many as it takes for every tenant to be in every cohort; sent
    round and round, each cohort then has requests in each round."""
    drawn = random.Random(seed)
    names = [f"tenant-{n:05}" for n in range(tenants)]
    drawn.shuffle(names)
    sources = all_sources()
    asking: dict[tuple[str, ...], Iterator[Sequence[str]]] = {}
    per_round = -(-tenants * COHORTS_OF_TENANT // batch_size)
    count = max(per_round, FEWEST)
    count += -count % len(sources)
    found = []
    for number in range(count):
        source = sources[number % len(sources)]
        group = (source.model, source.region) if "region" in COHORT else (source.model,)
        if group not in asking:
            asking[group] = _asking(drawn, names, batch_size)
        found.append(_template(drawn, source, next(asking[group])))
    return found


def _asking(drawn: random.Random, names: list[str], size: int) -> Iterator[Sequence[str]]:
    """Who is in a batch: drawn where tenants are few; where they are many, one after another."""
    turns = cycle(names)
    while True:
        if len(names) <= size:
            yield drawn.choices(names, k=size)
        else:
            yield [next(turns) for _ in range(size)]


def _template(drawn: random.Random, source: Source, tenants: Sequence[str]) -> Template:
    document = from_json(encode(batch(drawn, source, tenants, _AT_NS)))
    document["sequence"] = _SEQUENCE
    document["start_monotonic_ns"], document["end_epoch_ns"] = _START, _END
    ids = document["requests"]["request_id"]
    document["requests"]["request_id"] = [_ID.decode() + name[_ID_CHARACTERS:] for name in ids]
    body = to_json(document).replace(b"%", b"%%")
    for mark in (_SEQUENCE, _START, _END):
        body = body.replace(b"%d" % mark, b"%d")
    return Template(source, tuple(tenants), body, document["wall_ns"])
