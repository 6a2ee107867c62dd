"""Thousands of hostile messages through the real Kafka and the real worker into ClickHouse."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fuzz.batches import PRICES
from benchmarks.fuzz.kinds import Fate
from benchmarks.fuzz.run import fuzz
from streams.stack.config import StackConfig
from streams.stack.stack import Stack

pytestmark = pytest.mark.stack
MESSAGES = 4_200


async def test_each_hostile_message_is_a_dead_letter_and_each_good_one_between_them_is_stored(
    tmp_path: Path,
) -> None:
    (tmp_path / "book.toml").write_text(PRICES)
    config = StackConfig(
        tmp_path / "stack", price_book=tmp_path / "book.toml", preferred_ports=False
    )
    said: list[str] = []
    async with Stack(config, said.append, only=("worker",)) as stack:
        outcome = await fuzz(stack, MESSAGES, 7, said.append)
    journal, letters, stored = outcome.journal, outcome.letters, outcome.stored
    assert outcome.counted, said
    assert letters.examples == []
    assert stored.examples == []
    assert letters.right == MESSAGES - journal.with_fate(Fate.STORED, Fate.DUPLICATE)
    assert letters.right > 0.9 * MESSAGES
    assert letters.cut > 0
    assert len(journal.batches) > 100
    assert outcome.seen.duplicates == journal.with_fate(Fate.DUPLICATE) > 0
    assert outcome.restarts == 0
    assert outcome.seen.peak_rss_mib < 1024
