"""Tumbling windows of event time, and how far into its source each of them has counted.

The plain rule, line by line: state is plain data and changes only through :func:`count`,
:func:`close` and :func:`forget`; time is passed in. The stream does the same in two steps over
columns, ``metering.counting`` and ``metering.totals``, which are held to what is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any

from metering.costs import CostLine, WindowRow
from metering.money import atto_usd, usd
from metering.priced import PRICED
from metering.usage import WASTED

WINDOW_SECONDS: tuple[int, ...] = (10, 60, 3_600, 86_400)
"""Each divides the next, so whoever is too late for a window is too late for all shorter ones."""
NS_PER_SECOND = 10**9


@dataclass(slots=True)
class Tally:
    """Sums of one cohort in one window; costs in attodollars."""

    requests: int = 0
    retries: int = 0
    unpriced_requests: int = 0
    batch_size_sum: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    gpu_ns: int = 0
    input_gpu_ns: int = 0
    output_gpu_ns: int = 0
    cost_atto: int = 0
    input_cost_atto: int = 0
    output_cost_atto: int = 0
    padding_gpu_ns: int = 0
    wasted_gpu_ns: int = 0
    cache_hits: int = 0
    refused_requests: int = 0
    priced_requests: int = 0
    priced_input_tokens: int = 0
    priced_output_tokens: int = 0

    def add(self, line: CostLine) -> None:
        if not line.executed and line.status != "cache_hit":
            self.refused_requests += 1
            return
        self.requests += 1
        self.cache_hits += not line.executed
        self.wasted_gpu_ns += line.gpu_ns if line.status in WASTED else 0
        self.retries += line.retry_of is not None
        self.batch_size_sum += line.batch_size
        self.input_tokens += line.input_tokens
        self.cached_input_tokens += line.cached_input_tokens
        self.output_tokens += line.output_tokens
        self.gpu_ns += line.gpu_ns
        self.input_gpu_ns += line.input_gpu_ns
        self.output_gpu_ns += line.output_gpu_ns
        self.padding_gpu_ns += line.padding_gpu_ns
        if line.cost_usd is None or line.input_cost_usd is None or line.output_cost_usd is None:
            self.unpriced_requests += 1
        else:
            self.priced_requests += 1
            self.priced_input_tokens += line.input_tokens
            self.priced_output_tokens += line.output_tokens
            self.cost_atto += atto_usd(line.cost_usd)
            self.input_cost_atto += atto_usd(line.input_cost_usd)
            self.output_cost_atto += atto_usd(line.output_cost_usd)


@dataclass(frozen=True, slots=True, order=True)
class WindowKey:
    """Which window: its start in whole seconds of the epoch, and its length."""

    start_s: int
    seconds: int

    @property
    def end_ns(self) -> int:
        return (self.start_s + self.seconds) * NS_PER_SECOND


Cohort = tuple[str, str, str]
"""(tenant, model, region)"""


@dataclass(slots=True)
class Window:
    """The cohorts of one window; ``dirty`` ones were counted since they were last told."""

    cohorts: dict[Cohort, Tally] = field(default_factory=dict)
    dirty: set[Cohort] = field(default_factory=set)
    final: bool = False


@dataclass(slots=True)
class WindowState:
    """Every window that can still change, and the watermark: the event time reached."""

    windows: dict[WindowKey, Window] = field(default_factory=dict)
    watermark_ns: int = 0
    counted_to: int = -1


def window_key(time_ns: int, seconds: int) -> WindowKey:
    second = time_ns // NS_PER_SECOND
    return WindowKey(second - second % seconds, seconds)


def count(
    state: WindowState, lines: Iterable[CostLine], offset: int, *, retention_ns: int
) -> list[CostLine]:
    """Count the lines of the message at ``offset``; returns those that came too late.

    A window takes events until the watermark is ``retention_ns`` past its end. A late line is
    still priced and stored; only its windows can't be corrected any more. An offset that was
    counted before changes nothing.
    """
    if offset <= state.counted_to:
        return []
    late: list[CostLine] = []
    for line in lines:
        for seconds in WINDOW_SECONDS:
            key = window_key(line.time_ns, seconds)
            if key.end_ns + retention_ns <= state.watermark_ns:
                if not late or late[-1] is not line:
                    late.append(line)
                continue
            window = state.windows.setdefault(key, Window())
            cohort = (line.tenant, line.model, line.region)
            window.cohorts.setdefault(cohort, Tally()).add(line)
            window.dirty.add(cohort)
    state.counted_to = offset
    return late


def advance(state: WindowState, event_time_ns: int, *, disorder_ns: int) -> None:
    """Move the watermark to ``disorder_ns`` before the newest event; it never goes back."""
    state.watermark_ns = max(state.watermark_ns, event_time_ns - disorder_ns)


def close(state: WindowState, closing_ns: int, *, provisional: bool) -> list[WindowRow]:
    """Rows to publish: every cohort of the windows that end by ``closing_ns``, now final, and
    the changed cohorts of final windows (corrections); with ``provisional`` the changed cohorts
    of open windows too.

    ``closing_ns`` is the watermark, or later where a source has gone quiet.
    """
    rows: list[WindowRow] = []
    for key in sorted(state.windows):
        window = state.windows[key]
        if not window.final and key.end_ns <= closing_ns:
            window.final = True
            window.dirty = set(window.cohorts)
        if window.dirty and (window.final or provisional):
            rows += [
                row_of(key, cohort, astuple(window.cohorts[cohort]), window.final, state.counted_to)
                for cohort in sorted(window.dirty)
            ]
            window.dirty = set()
    return rows


def forget(state: WindowState, *, retention_ns: int) -> None:
    """Drop the windows that no event may change any more. By event time only: a source that is
    cut off for an hour finds its windows as it left them."""
    for key in [
        k
        for k, w in state.windows.items()
        if w.final and k.end_ns + retention_ns <= state.watermark_ns
    ]:
        del state.windows[key]


def row_of(
    key: WindowKey, cohort: Cohort, sums: Sequence[int], final: bool, counted_to: int
) -> WindowRow:
    """``sums`` are those of a ``Tally``, in its order; one below 0 is not known."""
    tenant, model, region = cohort
    values: dict[str, Any] = dict(zip(_FIELDS, sums, strict=True))
    values |= {name: None for name in PRICED if values[name] < 0}
    values |= {f"{name}_usd": usd(values.pop(f"{name}_atto")) for name in _COSTS}
    return WindowRow.model_construct(
        window_start_ms=key.start_s * 1000,
        window_seconds=key.seconds,
        tenant=tenant,
        model=model,
        region=region,
        final=final,
        counted_to=counted_to,
        **values,
    )


_FIELDS = tuple(f.name for f in fields(Tally))
_COSTS = ("cost", "input_cost", "output_cost")
