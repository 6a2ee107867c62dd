"""The sources of one partition of the usage topic, and which of them have changed.

Nothing here visits all sources but the first look after a start, and the one after a source has
been forgotten that was still sending.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace

from metering.sequences import SequenceSet
from metering.watermark import Living


@dataclass(slots=True)
class Source:
    """One emitting process: which of its batches were seen, its newest event time, and the
    broker's stamp of its last message."""

    seen: SequenceSet = field(default_factory=SequenceSet)
    last_ns: int = 0
    appended_ns: int = 0


class Sources(Mapping[str, Source]):
    """By name. Change them through ``see`` and ``forget`` alone."""

    def __init__(
        self, known: Mapping[str, Source] | None = None, *, are_saved: bool = True
    ) -> None:
        self._by_name = dict(known or {})
        self._oldest = [(source.last_ns, name) for name, source in self._by_name.items()]
        heapify(self._oldest)
        self._living: Living | None = None
        self._changed: set[str] = set() if are_saved else set(self._by_name)
        self._gone: set[str] = set()
        self.missing = sum(source.seen.missing for source in self._by_name.values())
        """Sequence numbers that are absent below the largest of their source."""

    def __getitem__(self, name: str) -> Source:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"Sources({self._by_name!r})"

    def see(self, name: str, sequence: int, end_ns: int, stamp_ns: int) -> bool:
        """Note a source's batch; ``False`` says that it was there before, and changes nothing."""
        source = self._by_name.get(name)
        is_new = source is None
        if source is None:
            source = Source()
        missing = source.seen.missing
        if not source.seen.add(sequence):
            return False
        self.missing += source.seen.missing - missing
        source.last_ns = max(source.last_ns, end_ns)
        source.appended_ns = max(source.appended_ns, stamp_ns)
        if is_new:
            self._by_name[name] = source
            self._gone.discard(name)
            heappush(self._oldest, (source.last_ns, name))
        self._changed.add(name)
        if self._living is not None:
            self._living.see(name, source.last_ns, source.appended_ns)
        return True

    def living(self, silence_ns: int) -> Living:
        """Those that are not silent; see :class:`metering.watermark.Disorder`."""
        if self._living is None or self._living.silence_ns != silence_ns:
            self._living = Living(
                ((name, s.last_ns, s.appended_ns) for name, s in self._by_name.items()), silence_ns
            )
        return self._living

    def forget(self, before_ns: int) -> None:
        """Drop the sources whose newest event time is before that."""
        while self._oldest and self._oldest[0][0] < before_ns:
            last_ns, name = self._oldest[0]
            source = self._by_name[name]
            if source.last_ns > last_ns:
                heapreplace(self._oldest, (source.last_ns, name))
                continue
            heappop(self._oldest)
            del self._by_name[name]
            self.missing -= source.seen.missing
            self._changed.discard(name)
            self._gone.add(name)
            if self._living is not None and name in self._living:
                # It may have had the newest stamp, by which the others were silent.
                self._living = None

    def take_changes(self) -> tuple[dict[str, Source], list[str]]:
        """What has changed since this was last asked, and who was forgotten."""
        changed = {name: self._by_name[name] for name in sorted(self._changed)}
        gone = sorted(self._gone)
        self._changed.clear()
        self._gone.clear()
        return changed, gone
