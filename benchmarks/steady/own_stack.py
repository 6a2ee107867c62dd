"""A stack in a folder of its own that is gone afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.stream.events import price_book
from streams.stack.config import StackConfig
from streams.stack.stack import Stack


@asynccontextmanager
async def own_stack(
    say: Callable[[str], None],
    partitions: Mapping[str, int] | None = None,
    only: Sequence[str] = ("worker",),
) -> AsyncIterator[Stack]:
    """Kafka, ClickHouse's endpoint and the worker, or ``only`` some of them, on ports that are
    free, with prices for the load's accelerators. ``partitions`` of topics that are not to have as
    many as usual."""
    folder = Path(tempfile.mkdtemp(prefix="meter-steady-"))
    try:
        book = folder / "bench-prices.toml"
        book.write_text(price_book())
        config = StackConfig(
            folder, price_book=book, preferred_ports=False, partitions=partitions or {}
        )
        async with Stack(config, say, only=only) as stack:
            yield stack
    finally:
        shutil.rmtree(folder, ignore_errors=True)
