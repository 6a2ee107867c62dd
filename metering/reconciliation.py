"""Triton's counters against what is stored of the same server, outcome by outcome. Pure.

A snapshot of counters that was taken between two moments holds everything that ended well before
the first, and nothing that ended after the second. So what is stored gives two bounds: ``low`` is
what must be in the snapshot, ``high`` what can be. Both sides agree where the counter lies between.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Literal, get_args

from pydantic import computed_field

from metering.capacity import MOST_COUNT, Count, Failures, ModelCounters
from metering.usage import EpochNs, Frozen, Name

SLACK_NS = 2 * 10**9
"""An execution is stamped before its answer goes out, and counted after. So much earlier than the
question it has been counted for certain."""
GPU_TOLERANCE_PERCENT = 10
FIRST_EXECUTION_NS = 250 * 10**6
"""The first execution of a process may take so much longer outside of the model than a later one;
86 ms were seen on a busy machine."""
EXECUTION_NS = 10**6
"""What the way to the model's process and back may take in each execution."""

Work = Literal["executions", "rows", "gpu_ns"]
Outcome = Literal["answered", "cache_hits", "failed", "timed_out", "cancelled_in_queue", "other"]
Quantity = Work | Outcome
UNSEEN: frozenset[Quantity] = frozenset(("cancelled_in_queue", "other"))
"""No line is of one of these. A front does not pass a cancellation on: what it has stored as
``cancelled_in_queue`` is what it gave up itself, and Triton has never counted."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""Every request that Triton counts is one of these, and only one."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What is stored of one model in a stretch of time: batches once, requests by outcome.

    ``gpu_ns`` is the batches' wall time. ``processes``: at least so many have executed any. Parts
    of ``answered``, which Triton does not tell apart, are ``errors``, answered with an error, and
    ``cancelled``: executed, and nobody waited for the answer.
    """

    executions: int = 0
    rows: int = 0
    gpu_ns: int = 0
    answered: int = 0
    failed: int = 0
    cache_hits: int = 0
    timed_out: int = 0
    cancelled_in_queue: int = 0
    rejected: int = 0
    processes: int = 0
    errors: int = field(default=0, compare=False)
    cancelled: int = field(default=0, compare=False)

    def __add__(self, other: Tally) -> Tally:
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Tally(**sums | {"processes": max(self.processes, other.processes)})


@dataclass(frozen=True, slots=True)
class Bounds:
    """``low`` is part of ``high``."""

    low: Tally = Tally()
    high: Tally = Tally()

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(self.low + other.low, self.high + other.high)


class Comparison(Frozen):
    """One counter. ``missing`` and ``surplus`` are what lies outside of the bounds; ``inferred`` is
    what no line tells of and the counter alone does, where that is no fault. ``allowed`` may be
    missing without being so: of GPU time, which is measured inside what Triton measures."""

    quantity: Quantity
    server: Count
    low: Count
    high: Count
    missing: Count = 0
    surplus: Count = 0
    inferred: Count = 0
    allowed: Count = 0

    @property
    def agrees(self) -> bool:
        return self.missing == 0 and self.surplus == 0

    @property
    def metered(self) -> int:
        """What is stored; of what can't be told from ``low`` to ``high``, what fits the server."""
        return min(self.high, max(self.low, self.server))


class Verdict(Frozen):
    """One model of one server at one snapshot; ``(boot_id, model, version, time_ns)`` is its key.

    ``requests`` is what Triton has counted: ``attributed`` to stored lines, ``inferred`` from the
    counters alone, or ``missing``. Of those that Triton counts as successes, ``errors`` were
    answered with an error, and of ``cancelled`` nobody got the answer. ``uncounted`` are stored and
    beyond what Triton counts: requests that found a queue full, or that their model's front gave up
    itself. ``confirmed`` names what the snapshot before had also found wrong. The counters began
    between ``counted_after_ns`` and ``counted_before_ns``, when Triton already told of
    ``failures_before``.
    """

    host: Name
    boot_id: Name
    model: Name
    version: Name
    time_ns: EpochNs
    asked_ns: EpochNs
    counted_after_ns: EpochNs = 0
    counted_before_ns: EpochNs = 0
    failures_before: Failures = Failures()
    comparisons: tuple[Comparison, ...]
    uncounted: Count = 0
    errors: Count = 0
    cancelled: Count = 0
    confirmed: tuple[Quantity, ...] = ()

    def of(self, quantity: Quantity) -> Comparison | None:
        """``None``: the server did not tell."""
        return next((c for c in self.comparisons if c.quantity == quantity), None)

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.boot_id, self.model, self.version)

    @property
    def discrepancies(self) -> tuple[Quantity, ...]:
        return tuple(c.quantity for c in self.comparisons if not c.agrees)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def agrees(self) -> bool:
        return not self.discrepancies

    @computed_field  # type: ignore[prop-decorator]
    @property
    def requests(self) -> int:
        return sum(c.server for c in self._outcomes)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def attributed(self) -> int:
        return self.requests - self.inferred - self.missing

    @computed_field  # type: ignore[prop-decorator]
    @property
    def inferred(self) -> int:
        return sum(c.inferred for c in self._outcomes)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def missing(self) -> int:
        return sum(c.missing for c in self._outcomes)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def coverage_percent(self) -> Decimal:
        """Rounded down: 100.00 says that not one is missing."""
        return percent(self.requests - self.missing, self.requests)

    def part(
        self,
        quantity: Quantity,
        name: Literal["server", "missing", "surplus", "inferred", "allowed"],
    ) -> int:
        """0 where the server did not tell."""
        found = self.of(quantity)
        return 0 if found is None else int(getattr(found, name))

    @property
    def missing_executions(self) -> int:
        return self.part("executions", "missing")

    @property
    def _outcomes(self) -> list[Comparison]:
        return [c for c in self.comparisons if c.quantity in OUTCOMES]


class Snapshot(Frozen):
    """Where and when counters were asked for, and since when they count; see ``Verdict``."""

    host: Name
    boot_id: Name
    time_ns: EpochNs
    asked_ns: EpochNs
    counted_after_ns: EpochNs = 0
    counted_before_ns: EpochNs = 0
    failures_before: Failures = Failures()


def percent(part: int, whole: int) -> Decimal:
    """With two decimals, rounded down; of nothing, all is there."""
    return Decimal(10_000 if whole == 0 else part * 10_000 // whole).scaleb(-2)


def counted(counters: ModelCounters) -> dict[Quantity, int]:
    """What Triton tells. Without its metrics it does not tell why requests have failed."""
    told: dict[Quantity, int] = {
        "executions": counters.executions,
        "rows": counters.rows,
        "gpu_ns": counters.gpu_ns,
        "answered": max(0, counters.successes - counters.cache_hits),
        "cache_hits": counters.cache_hits,
    }
    if counters.failures is not None:
        told |= {
            "failed": counters.failures.backend,
            "timed_out": counters.failures.rejected,
            "cancelled_in_queue": counters.failures.cancelled,
            "other": counters.failures.other,
        }
    return told


def judge(snapshot: Snapshot, counters: ModelCounters, stored: Bounds) -> Verdict:
    told = counted(counters)
    # Each lost batch is seen in executions and rows, its failed requests included. Where nothing
    # is lost, a failure that no line tells of was never executed: its model's process was dead.
    lost = told["executions"] > stored.high.executions or told["rows"] > stored.high.rows
    inferred = {"cache_hits", "timed_out", "cancelled_in_queue"}
    if not lost:
        inferred |= {"failed", "other"}
    allowed_ns = (
        counters.gpu_ns * GPU_TOLERANCE_PERCENT // 100
        + FIRST_EXECUTION_NS * max(1, stored.high.processes)
        + EXECUTION_NS * counters.executions
    )
    return Verdict(
        **snapshot.model_dump(),
        model=counters.model,
        version=counters.version,
        comparisons=tuple(
            _compare(
                quantity,
                server,
                stored,
                allowed=allowed_ns if quantity == "gpu_ns" else 0,
                inferred=quantity in inferred,
            )
            for quantity, server in told.items()
        ),
        uncounted=min(
            stored.high.rejected
            + stored.high.cancelled_in_queue
            + max(0, stored.low.timed_out - told.get("timed_out", stored.low.timed_out)),
            MOST_COUNT,
        ),
        errors=min(stored.high.errors, MOST_COUNT),
        cancelled=min(stored.high.cancelled, MOST_COUNT),
    )


def confirm(verdict: Verdict, before: Verdict | None) -> Verdict:
    """What was wrong in the snapshot before as well is no matter of what was on its way."""
    if before is None or before.key != verdict.key or before.time_ns >= verdict.time_ns:
        return verdict
    again = tuple(q for q in verdict.discrepancies if q in before.discrepancies)
    return verdict.model_copy(update={"confirmed": again})


def _compare(
    quantity: Quantity, server: int, stored: Bounds, *, allowed: int, inferred: bool
) -> Comparison:
    """``allowed`` is what may be missing. What is stored may be more than any server counts."""
    low = 0 if quantity in UNSEEN else min(getattr(stored.low, quantity), MOST_COUNT)
    high = 0 if quantity in UNSEEN else min(getattr(stored.high, quantity), MOST_COUNT)
    gap = max(0, server - high - allowed)
    return Comparison(
        quantity=quantity,
        server=server,
        low=low,
        high=high,
        missing=0 if inferred else gap,
        surplus=0 if quantity == "timed_out" else max(0, low - server),
        inferred=gap if inferred else 0,
        allowed=min(allowed, MOST_COUNT),
    )
