"""How long the README's queries take at size: ``make bench-sql``, or with ``QUICK=1``.

The embedded engine behind its HTTP interface, asked by clickhouse-connect, has 30 days of 20
million lines and the 4.7 million rows of their windows. Each of the README's queries is timed in
three states: as ClickHouse has left the parts after the inserts; with the parts merged; and with
eight fresh parts besides, whose rows replace some of the merged ones, while merges are stopped.
Rounds of all queries alternate. Beside each is the plain way to the same answer, from the lines;
how many answers differ from it is a figure.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.bench_sizes import clickhouse
from benchmarks.report import Figure, Narrator, Say, end, none_of, show
from benchmarks.sql.fill import DAYS, FRESH_PARTS, Month, fill, fresh_parts
from benchmarks.sql.questions import Question, questions
from sinks.clickhouse.connection import Client, connect
from sinks.clickhouse.schema import migrate
from streams.stack.places import REPO

RESULTS = REPO / "build" / "results" / "bench_sql.json"
TARGET_MS = 300
ROUNDS, PLAIN_ROUNDS = 9, 2
_TABLES = ("cost_request_lines", "cost_window_rows")
_SIZE = (
    "SELECT sum(rows), sum(bytes_on_disk), count() FROM system.parts "
    "WHERE active AND database = currentDatabase() AND table = {table:String}"
)
Rows = Sequence[tuple[object, ...]]


def timed_ms(client: Client, sql: str) -> tuple[float, Rows]:
    begun_s = time.perf_counter()
    rows = client.query(sql).result_rows
    return (time.perf_counter() - begun_s) * 1e3, [tuple(row) for row in rows]


def times_of(client: Client, asked: Sequence[Question]) -> dict[str, list[float]]:
    """Of the fast way, in rounds of all of them; one round before counts for nothing."""
    taken: dict[str, list[float]] = {question.name: [] for question in asked}
    for number in range(ROUNDS + 1):
        for question in asked:
            took_ms, _ = timed_ms(client, question.fast)
            if number:
                taken[question.name].append(took_ms)
    return taken


def measure(
    client: Client, asked: Sequence[Question], state: str, say: Say
) -> tuple[dict[str, Figure], int]:
    """A figure for each query, and how many had another answer than the plain way."""
    taken = times_of(client, asked)
    figures, different = {}, 0
    for question in asked:
        times = taken[question.name]
        median = statistics.median(times)
        spread = f"{min(times):.0f} to {max(times):.0f}"
        if question.plain is not None:
            plain = [timed_ms(client, question.plain) for _ in range(PLAIN_ROUNDS)]
            plain_ms = statistics.median(took for took, _ in plain)
            answer = timed_ms(client, question.fast)[1]
            equal = bool(answer) and sorted(answer, key=str) == sorted(plain[0][1], key=str)
            different += not equal
            spread += f", plain {plain_ms:.0f}, {plain_ms / median:.0f}x"
            if not equal:
                say(f"{question.name}, {state}: {len(answer)} rows differ from the plain way's")
        figures[f"{question.name}_{state}"] = Figure(
            round(median), "ms", f"<= {TARGET_MS} ms", median <= TARGET_MS, spread
        )
        say(f"{question.name}, {state}: {median:.0f} ms ({spread})")
    return figures, different


def sizes(client: Client) -> dict[str, Figure]:
    """Of the tables, with the fresh parts."""
    figures = {}
    for table in _TABLES:
        rows, size, parts = client.query(_SIZE, parameters={"table": table}).result_rows[0]
        figures[table] = Figure(int(rows), "rows", spread=f"{size / 1e6:.0f} MB, {parts} parts")
    return figures


def run(client: Client, month: Month, say: Say) -> dict[str, Figure]:
    asked = questions(month.end_s)
    fill(client, month, say)
    figures: dict[str, Figure] = {}
    unclaimed, different = measure(client, asked, "as_inserted", say)
    for name, figure in unclaimed.items():  # merges go on meanwhile: nothing is claimed
        figures[name] = replace(figure, target=None, holds=None)
    for table in _TABLES:
        say(f"merging {table}")
        client.command(f"OPTIMIZE TABLE {table} FINAL")
    merged, more = measure(client, asked, "merged", say)
    different += more
    for table in _TABLES:
        client.command(f"SYSTEM STOP MERGES {table}")
    for part in fresh_parts(client, month):
        say(f"{part} of {FRESH_PARTS} fresh parts")
    fresh, more = measure(client, asked, "fresh_parts", say)
    return {
        **sizes(client),
        **figures,
        **merged,
        **fresh,
        "answers_that_differ": none_of(different + more, "answers"),
    }


def main() -> None:
    quick = os.environ.get("QUICK") == "1"
    lines = 400_000 if quick else 20_000_000
    now_s = int(time.time())
    month = Month(
        lines,
        begin_s=now_s - now_s % 86_400 - DAYS * 86_400,
        fresh_lines=FRESH_PARTS * (400 if quick else 2_000),
        seed=int(os.environ.get("SEED", "1")),
    )
    say = Narrator()
    with (
        tempfile.TemporaryDirectory(prefix="meter-sql-", dir=os.environ.get("TMPDIR")) as name,
        clickhouse(Path(name)) as (started, _),
    ):
        target = replace(started, database="sql")
        migrate(target)
        with connect(target, send_receive_timeout=3_600) as client:  # a merge answers at its end
            figures = run(client, month, say)
    figures["took"] = say.took()
    show(f"{lines:,} lines of {DAYS} days", figures)
    end(RESULTS, figures)


if __name__ == "__main__":
    main()
