"""What is stored of a heartbeat's server, compared with its counters, model by model."""

from __future__ import annotations

from collections import defaultdict

from metering.capacity import CapacityHeartbeat, ModelCounters, newest_versions
from metering.counted import Counting, Question, answer, look, question, resume
from metering.errors import QueryFailed, SinkUnavailable
from metering.reconciliation import Verdict
from sinks.clickhouse.capacity import CapacityReader, Key
from sinks.clickhouse.connection import ClickHouseTarget

FORGOTTEN_AFTER_NS = 3_600 * 10**9
"""A server that no heartbeat has spoken of for so long; ClickHouse remembers it."""


class Judging:
    """Remembers, per model of each server, since when it counts and what is settled. After a
    restart it goes on from the last stored verdicts. Not for several threads at once."""

    def __init__(self, target: ClickHouseTarget) -> None:
        self._target = target
        self._reader: CapacityReader | None = None
        self._known: dict[str, dict[Key, Counting]] = {}
        self._spoken_ns: dict[str, int] = {}

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def judge(self, beat: CapacityHeartbeat) -> list[Verdict]:
        """One per model that was not judged at this heartbeat or a later one before.

        Raises:
            SinkUnavailable: ClickHouse does not answer.
        """
        if beat.boot_id is None or not beat.models:
            return []
        try:
            if self._reader is None:
                self._reader = CapacityReader(self._target)
            if beat.boot_id not in self._known:
                last = self._reader.last_verdicts(beat.boot_id)
                self._known[beat.boot_id] = {key: resume(v) for key, v in last.items()}
            judged = self._answers(self._reader, beat.boot_id, beat)
        except QueryFailed as exc:
            self.close()
            raise SinkUnavailable(f"ClickHouse at {self._target.address}", 0, str(exc)) from exc
        self._known[beat.boot_id] |= judged
        self._forget(beat)
        return [counting.last for counting in judged.values() if counting.last is not None]

    def _answers(
        self, reader: CapacityReader, boot_id: str, beat: CapacityHeartbeat
    ) -> dict[Key, Counting]:
        """Models with the same question are counted by one query; mostly, that is all of them."""
        asked: dict[Question, list[tuple[ModelCounters, Counting]]] = defaultdict(list)
        for counters in beat.models:
            before = self._known[boot_id].get((counters.model, counters.version), Counting())
            if before.last is None or before.last.time_ns < beat.time_ns:
                counting = look(before, beat, counters)
                asked[question(counting, beat)].append((counters, counting))
        judged = {}
        for wanted, models in asked.items():
            names = {counters.model for counters, _ in models}
            newest = {m: v for m, v in newest_versions(beat.models).items() if m in names}
            stored = reader.stored_of(boot_id, newest, wanted)
            for counters, counting in models:
                key = (counters.model, counters.version)
                judged[key] = answer(counting, wanted, beat, counters, stored.get(key, {}))
        return judged

    def _forget(self, beat: CapacityHeartbeat) -> None:
        assert beat.boot_id is not None  # noqa: S101  # the caller has looked
        self._spoken_ns[beat.boot_id] = beat.time_ns
        for boot_id, spoken_ns in list(self._spoken_ns.items()):
            if beat.time_ns - spoken_ns > FORGOTTEN_AFTER_NS:
                del self._spoken_ns[boot_id], self._known[boot_id]
