"""When lines became visible to SQL: ClickHouse is asked which parts of the table are new to us, and
then for what is in those alone. A query sees exactly the rows of the active parts, so this is what
any query would see, without one that reads the table each time.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import aiohttp

from benchmarks.steady.match import Lines
from streams.settings import Settings

TABLE = "cost_request_lines"
_PARTS = """
SELECT name, partition_id, max_block_number, rows FROM system.parts
WHERE database = {database:String} AND table = {table:String} AND active
FORMAT TSV
"""
_LINES = """
SELECT source, sequence, groupBitOr(bitShiftLeft(toUInt64(1), position)), count()
FROM {database:Identifier}.{table:Identifier}
WHERE _part IN {parts:Array(String)} GROUP BY source, sequence FORMAT TSV
"""
MOST_LINES = 64
"""Of a message, whose positions are told as the bits of one number."""


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    partition: str
    max_block: int
    rows: int


@dataclass(slots=True)
class Blocks:
    """Up to which block of each partition we have seen. A part that holds a later one, freshly
    written or merged meanwhile, has something new."""

    seen: dict[str, int] = field(default_factory=dict)

    def new(self, parts: list[Part]) -> list[Part]:
        return [p for p in parts if p.max_block > self.seen.get(p.partition, -1)]

    def saw(self, parts: list[Part]) -> None:
        for p in parts:
            self.seen[p.partition] = max(p.max_block, self.seen.get(p.partition, -1))


class Visible:
    """Asks every ``every_s``; a sighting bears the moment at which the answer was there, so the
    time between two questions, and that of the question, count as delay."""

    def __init__(self, settings: Settings, every_s: float) -> None:
        self._url = settings.clickhouse
        self._database = settings.clickhouse_database
        self._every_s = every_s
        self._blocks = Blocks()
        self._answers: list[tuple[int, bytes]] = []
        self.asked = 0
        self.asking_s = 0.0

    async def __aenter__(self) -> Visible:
        self._session = aiohttp.ClientSession()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._session.close()

    def check(self) -> None:
        """Raises what it has failed with."""
        if self._task.done():
            self._task.result()

    def lines(self) -> Lines:
        found = Lines()
        for at_ns, answer in self._answers:
            for row in answer.decode().splitlines():
                source, sequence, bits, _ = row.split("\t")
                positions = [n for n in range(MOST_LINES) if int(bits) >> n & 1]
                found.add((source, int(sequence)), positions, at_ns)
        return found

    async def _watch(self) -> None:
        while True:
            begun_s = time.monotonic()
            await self._look()
            took_s = time.monotonic() - begun_s
            self.asked += 1
            self.asking_s += took_s
            await asyncio.sleep(max(0.0, self._every_s - took_s))

    async def _look(self) -> None:
        told = (await self._ask(_PARTS, {})).decode().splitlines()
        parts = [
            Part(name, partition, int(block), int(rows))
            for name, partition, block, rows in (row.split("\t") for row in told)
        ]
        new = self._blocks.new(parts)
        if not new:
            return
        names = "[" + ",".join(f"'{p.name}'" for p in new) + "]"
        answer = await self._ask(_LINES, {"parts": names})
        at_ns = time.time_ns()
        rows = sum(int(row.rpartition(b"\t")[2]) for row in answer.splitlines())
        self._answers.append((at_ns, answer))
        if rows >= sum(p.rows for p in new):  # else a part was merged away in between: once more
            self._blocks.saw(new)

    async def _ask(self, query: str, parameters: dict[str, str]) -> bytes:
        url_parameters = {
            "param_database": self._database,
            "param_table": TABLE,
            **{f"param_{name}": value for name, value in parameters.items()},
        }
        async with self._session.post(self._url, params=url_parameters, data=query) as answer:
            text = await answer.read()
            answer.raise_for_status()
            return text
