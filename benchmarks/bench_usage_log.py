"""What the usage log costs: the server per batch, for its record and for each way to sync it, and
the host for a shipper that is idle.

``python -m benchmarks.bench_usage_log``: a table, and ``build/results/usage_log.json``. The ways to
sync take turns within every round, so that what else the machine does meets them alike. With
``QUICK=1`` fewer rounds.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median, quantiles
from types import SimpleNamespace
from typing import get_args

from prometheus_client import CollectorRegistry

from benchmarks.report import Figure, end, show
from metering.finishing import usage_of_payload
from metering.records import CONSTANT, RuleRecipe, Timing, encode_head, encode_record
from metering.wal_cap import drop, drop_lock
from sinks.prometheus import ShipperMetrics
from streams.publisher import Record
from streams.shipper.ship import IDLE_S, UPKEEP_S, Shipper
from streams.stack.places import REPO
from triton_models.emitter.log import SEGMENT_BYTES, Fsync, UsageLog
from triton_models.emitter.record import Served, asked_by_texts, recorder_of, took

RESULTS = REPO / "build" / "results" / "usage_log.json"
MODES: tuple[Fsync, ...] = get_args(Fsync)
REQUESTS = 64
SEGMENT_OF_BENCH_BYTES = 2 * 1024**2
"""A quarter of the default, so that every run rotates several times."""
APPENDS = 250
PAUSE_S = 0.002
SOURCES = 64
COEFFICIENTS = (
    ("fixed_ps", 2_990_070_000),
    ("input_token_ps", 27_614_800),
    ("output_token_ps", 445_447_400),
)
REQUEST = {
    "request_id": "f3b0c442-98fc-1c14-9afb-f4c8996fb924", "tenant": "acme", "team": "search",
    "project": "answers", "user": "", "identity_source": "header", "operation": "chat",
    "status": "ok", "retry_of": None, "rows": 1, "input_tokens": 812, "cached_input_tokens": 0,
    "output_tokens": 143, "reasoning_tokens": 0, "queue_ns": None, "gpu_ns": 36123456,
    "input_gpu_ns": 9123456, "output_gpu_ns": 27000000,
}  # fmt: skip
PAYLOAD = json.dumps(
    {"source": "host/boot/1/llama_0", "end_epoch_ns": 1, "requests": [REQUEST] * REQUESTS}
).encode()


class Nowhere:
    """In Kafka's place: takes all at once."""

    async def publish(self, records: Sequence[Record]) -> None: ...


def figure(values: Sequence[float], unit: str, most: float | None = None) -> Figure:
    """The median and the interquartile range; ``most`` is what is allowed, where it is bounded."""
    low, middle, high = quantiles(values, n=4)
    return Figure(
        round(middle, 2),
        unit,
        None if most is None else f"≤ {most:g}",
        None if most is None else middle <= most,
        f"± {high - low:.2f}",
    )


def appends_us(folder: Path, fsync: Fsync) -> list[float]:
    """Each append of one run. A new log is warm after its first batch."""
    log = UsageLog(folder / fsync, segment_bytes=SEGMENT_OF_BENCH_BYTES, fsync=fsync)
    taken = []
    for _ in range(APPENDS + 1):
        begun = time.perf_counter_ns()
        log.append(log.reserve(), PAYLOAD, REQUESTS)
        taken.append((time.perf_counter_ns() - begun) / 1e3)
        time.sleep(PAUSE_S)
    log.close()
    shutil.rmtree(folder / fsync)
    return taken[1:]


def append_figures(folder: Path, rounds: int) -> dict[str, Figure]:
    medians: dict[Fsync, list[float]] = {mode: [] for mode in MODES}
    means: dict[Fsync, list[float]] = {mode: [] for mode in MODES}
    tails: dict[Fsync, list[float]] = {mode: [] for mode in MODES}
    for turn in range(rounds):
        for place in range(len(MODES)):
            mode = MODES[(turn + place) % len(MODES)]
            taken = appends_us(folder, mode)
            medians[mode].append(median(taken))
            means[mode].append(mean(taken))
            tails[mode].append(quantiles(taken, n=100)[98])
        say(f"appends: round {turn + 1} of {rounds}")
    targets: dict[Fsync, float | None] = {"never": 100.0, "interval": 100.0}
    figures: dict[str, Figure] = {}
    for mode in MODES:
        figures[f"append_{mode}_us"] = figure(medians[mode], "us", targets.get(mode))
        figures[f"append_{mode}_mean_us"] = figure(means[mode], "us")
        figures[f"append_{mode}_p99_us"] = figure(tails[mode], "us")
    return figures


async def shipper_figures(folder: Path, rounds: int) -> dict[str, Figure]:
    """Of ``SOURCES`` that are idle: one poll, one round of upkeep, and what both take of a core."""
    logs = [UsageLog(folder / f"host/boot/{n}/m_0", log_dir=folder) for n in range(SOURCES)]
    for log in logs:
        log.append(log.reserve(), PAYLOAD)
    shipper = Shipper(folder, Nowhere(), ShipperMetrics(CollectorRegistry()))
    await shipper.upkeep.once(time.time())
    while await shipper.ship_once():
        pass
    await asyncio.sleep(0.2)  # folders that changed just now are looked at more closely
    polls_us, upkeeps_us = [], []
    for _ in range(rounds * 10):
        begun = time.perf_counter_ns()
        await shipper.ship_once()
        polls_us.append((time.perf_counter_ns() - begun) / 1e3)
        begun = time.perf_counter_ns()
        await shipper.upkeep.once(time.time())
        upkeeps_us.append((time.perf_counter_ns() - begun) / 1e3)
    for log in logs:
        log.close()
    shares = [
        100 * (poll_us / (IDLE_S * 1e6) + upkeep_us / (UPKEEP_S * 1e6))
        for poll_us, upkeep_us in zip(polls_us, upkeeps_us, strict=True)
    ]
    return {
        "idle_poll_64_sources_us": figure(polls_us, "us"),
        "idle_upkeep_64_sources_us": figure(upkeeps_us, "us"),
        "idle_shipper_64_sources_percent_of_a_core": figure(shares, "%", 5.0),
    }


def record_figures(rounds: int) -> dict[str, Figure]:
    """The record of a batch of ``REQUESTS``, which the server writes (compiled, and by Python where
    it is not), and the event that is made of it elsewhere. Warm: after a batch, with the model's
    data in the caches, it takes some times as long."""
    constant: dict[str, object] = dict.fromkeys(CONSTANT, "host/boot/1/llama_0")
    head = encode_head(
        constant | {"speedup": 1}, "chat", RuleRecipe("affine-shapley", COEFFICIENTS)
    )
    parameters = [
        f'{{"tenant":"tenant-{n % 32}","team":"search","project":"answers"}}'
        for n in range(REQUESTS)
    ]
    ids = [f"f3b0c442-98fc-1c14-9afb-{n:012d}" for n in range(REQUESTS)]
    requests = [
        SimpleNamespace(request_id=i.__str__, parameters=text.__str__)
        for i, text in zip(ids, parameters, strict=True)
    ]
    served = [Served(input_tokens=812 + n, output_tokens=143) for n in range(REQUESTS)]
    timing = Timing(0, 36_123_456, 1, 36_123_456)
    records_us, events_us, compiled_us = [], [], []
    recorder = recorder_of(head, batched=False)
    for _ in range(rounds * 20):
        begun = time.perf_counter_ns()
        asked = asked_by_texts(ids, parameters)
        record = encode_record(head, 7, timing, asked, took([1] * REQUESTS, served))
        between = time.perf_counter_ns()
        usage_of_payload(record).model_dump_json()
        events_us.append((time.perf_counter_ns() - between) / 1e3)
        records_us.append((between - begun) / 1e3)
        if recorder is not None:
            begun = time.perf_counter_ns()
            asked_compiled = recorder.asked(requests)
            assert asked_compiled is not None  # noqa: S101  # they are usual ones
            compiled = recorder.record(7, timing, asked_compiled, served)
            compiled_us.append((time.perf_counter_ns() - begun) / 1e3)
            assert compiled is not None  # noqa: S101
            assert json.loads(compiled) == json.loads(record)  # noqa: S101
    compiled_figures = {"record_64_compiled_us": figure(compiled_us, "us")} if compiled_us else {}
    return compiled_figures | {
        "record_64_us": figure(records_us, "us", 150.0),
        "record_64_bytes": Figure(len(record), "bytes"),
        "event_of_record_64_us": figure(events_us, "us"),
    }


def drop_figures(folder: Path, rounds: int) -> dict[str, Figure]:
    """To count what a full segment holds, request by request, and give its space back."""
    taken_ms = []
    for turn in range(rounds):
        source = folder / f"drop/{turn}"
        log = UsageLog(source, log_dir=folder)
        for _ in range(SEGMENT_BYTES // len(PAYLOAD) - 1):
            log.append(log.reserve(), PAYLOAD)
        log.close()
        with drop_lock(folder) as mine:
            assert mine  # noqa: S101  # nobody else is here
            begun = time.perf_counter_ns()
            drop(source, 0)
            taken_ms.append((time.perf_counter_ns() - begun) / 1e6)
        shutil.rmtree(source)
    return {"drop_8_mib_ms": figure(taken_ms, "ms")}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    rounds = 6 if os.environ.get("QUICK") else 40
    with tempfile.TemporaryDirectory(dir=_on_a_disk()) as name:
        folder = Path(name)
        figures = append_figures(folder / "append", rounds)
        parts: list[Callable[[], dict[str, Figure]]] = [
            lambda: asyncio.run(shipper_figures(folder / "ship", rounds)),
            lambda: drop_figures(folder / "drops", rounds),
            lambda: record_figures(rounds),
        ]
        for part in parts:
            figures |= part()
    title = f"{len(PAYLOAD)} bytes a batch of {REQUESTS} requests, every {PAUSE_S * 1e3:g} ms"
    show(title, figures)
    end(RESULTS, figures)


def _on_a_disk() -> Path:
    """Beside the results: /tmp may be in memory, where a sync costs nothing."""
    folder = RESULTS.parent.parent / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
