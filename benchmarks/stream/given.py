"""What every side is given, in its environment. Standard library only: the sides that are compared
with have environments of their own."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOPIC = "usage.batches.v1"
COMMIT_S = 1.0
"""How often each side tells Kafka how far it is: the worker's own interval, so it is everyone's."""
WINDOW_S = 60


@dataclass(frozen=True, slots=True)
class Given:
    kafka: str
    group: str
    folder: Path
    price_book: Path

    @classmethod
    def from_env(cls) -> Given:
        env = os.environ
        return cls(
            env["BENCH_KAFKA"],
            env["BENCH_GROUP"],
            Path(env["BENCH_FOLDER"]),
            Path(env["BENCH_PRICE_BOOK"]),
        )

    def to_env(self) -> dict[str, str]:
        return {
            "BENCH_KAFKA": self.kafka,
            "BENCH_GROUP": self.group,
            "BENCH_FOLDER": str(self.folder),
            "BENCH_PRICE_BOOK": str(self.price_book),
        }

    def usd_per_gpu_ns(self) -> dict[tuple[str, str], float]:
        """By accelerator and region, as a float."""
        entries: list[dict[str, Any]] = tomllib.loads(self.price_book.read_text())["gpu_hour"]
        return {
            (e["accelerator"], e["region"]): float(e["usd_per_gpu_hour"]) / 3.6e12 for e in entries
        }
