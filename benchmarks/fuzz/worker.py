"""The worker as seen from outside: how far it is, what it says it did, and its memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from streams.stack.stack import Stack

_SAMPLE = re.compile(r"^([a-z_]+)(\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Seen:
    """``counted_to`` is -1 where nothing was counted yet."""

    counted_to: int
    batches: int
    duplicates: int
    refused: int
    rss_mib: float
    peak_rss_mib: float


async def look(stack: Stack) -> Seen | None:
    """``None``: the worker does not answer just now."""
    pid = stack.endpoints.pids.get("worker")
    if pid is None:
        return None
    try:
        timeout = aiohttp.ClientTimeout(total=30)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(stack.endpoints.metrics["worker"]) as answer,
        ):
            text = await answer.text()
        memory = Path(f"/proc/{pid}/status").read_text()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
    sums: dict[str, float] = {}
    for name, _, value in _SAMPLE.findall(text):
        sums[name] = sums.get(name, 0) + float(value)

    def mib(field: str) -> float:
        found = re.search(rf"^{field}:\s+(\d+) kB", memory, re.MULTILINE)
        return 0.0 if found is None else int(found.group(1)) / 1024

    return Seen(
        counted_to=int(sums.get("meter_counted_to_offset", -1)),
        batches=int(sums.get("meter_batches_total", 0)),
        duplicates=int(sums.get("meter_duplicate_batches_total", 0)),
        refused=int(sums.get("meter_refused_messages_total", 0)),
        rss_mib=mib("VmRSS"),
        peak_rss_mib=mib("VmHWM"),
    )
