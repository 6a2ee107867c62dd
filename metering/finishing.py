"""From what a server has written down of a batch to its usage event. Pure.

What is worked out here is the division of the batch's time. The same record always gives the same
event, so one that is sent twice is the same message twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import ValidationError

from metering.apportion import (
    RULES,
    ApportionmentRule,
    Share,
    Turn,
    Work,
    largest_remainder,
    rule_named,
)
from metering.errors import MeteringError, UnreadableUsage
from metering.names import MAX_LENGTH, clean
from metering.records import CONSTANT, VERSION, Asked, RuleRecipe, Timing, Took, is_record
from metering.usage import UNEXECUTED, RequestUsage, UsageBatch, describe, parse_usage
from metering.usage_columns import is_columns, usage_of_columns


def usage_of_payload(payload: bytes, rule: ApportionmentRule | None = None) -> UsageBatch:
    """The event in a frame of the usage log or a message of its topic: a record is finished, a
    whole event, in objects or in columns, only read.

    ``rule`` goes before the record's own.

    Raises:
        UnreadableUsage: naming what is wrong and the value found there.
    """
    if is_columns(payload):
        return usage_of_columns(payload)
    if not is_record(payload):
        return parse_usage(payload)
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as exc:
        raise UnreadableUsage("malformed", f"record: {exc}") from exc
    try:
        return _finish(document, rule)
    except ValidationError as exc:
        raise UnreadableUsage("invalid", describe(exc)) from exc
    except KeyError as exc:
        raise UnreadableUsage("invalid", f"record: {exc.args[0]}: missing") from exc
    except (MeteringError, TypeError, ValueError, IndexError, AttributeError) as exc:
        raise UnreadableUsage("invalid", f"record: {exc}") from exc
    except (ArithmeticError, RecursionError) as exc:  # huge numbers; nested too deep to be shown
        raise UnreadableUsage("invalid", f"record: {type(exc).__name__}") from exc


def _finish(document: Mapping[str, Any], rule: ApportionmentRule | None) -> UsageBatch:
    if document["record"] != VERSION:
        raise MeteringError(f"record={document['record']!r}: this version reads {VERSION}")
    if rule is None:
        name, version, coefficients_ps, calibration = document["rule"]
        rule = _rule(RuleRecipe(name, tuple(coefficients_ps.items()), calibration, version))
    timing = Timing(**{field: document[field] for field in Timing._fields})
    for field, value in zip(Timing._fields, timing, strict=True):
        if value is not None:
            _integer(field, value)
    rows = _rows(
        Asked(**{field: document[field] for field in Asked._fields}),
        Took(**{field: document[field] for field in Took._fields}),
    )
    gpu_ns, parts_of_wall = _gpu_time(timing)
    shares = rule.split(gpu_ns, [row.work for row in rows])
    prefill_ns, prefill = _phase(
        timing.prefill_ns, timing, gpu_ns, [s.input_gpu_ns for s in shares]
    )
    decode_ns, decode = _phase(timing.decode_ns, timing, gpu_ns, [s.output_gpu_ns for s in shares])
    source, sequence = document["source"], document["sequence"]
    requests = tuple(
        _request(
            row,
            share,
            operation=document["operation"],
            # A request without an id gets one that no other batch has.
            request_id=row.request_id or f"{sequence}.{position}@{source}"[:MAX_LENGTH],
            prefill_gpu_ns=prefill[position],
            decode_gpu_ns=decode[position],
        )
        for position, (row, share) in enumerate(zip(rows, shares, strict=True))
    )
    return UsageBatch(
        **{field: document[field] for field in CONSTANT},
        sequence=sequence,
        executed=not any(row.status in UNEXECUTED for row in rows),
        batch_size=sum(row.rows for row in rows),
        wall_ns=timing.end_ns - timing.start_ns,
        gpu_ns=gpu_ns,
        **parts_of_wall,
        prefill_ns=prefill_ns,
        decode_ns=decode_ns,
        start_monotonic_ns=timing.start_ns,
        end_epoch_ns=timing.end_epoch_ns,
        apportionment_rule=rule.rule_id,
        requests=requests,
    )


def _gpu_time(timing: Timing) -> tuple[int, dict[str, Any]]:
    """The batch's own time on its device, and what else its wall time went into.

    Where the device has a clock of its own, the batch's share of the wall time counts in the
    proportion in which the device worked in it; the rest of the share is ``stalled_ns``.
    """
    wall_ns = timing.end_ns - timing.start_ns
    share_ns = wall_ns if timing.share_ns is None else timing.share_ns
    parts: dict[str, Any] = {
        "overlap_ns": None if timing.share_ns is None else wall_ns - share_ns,
    }
    if timing.device_ns is None:
        return share_ns, parts
    worked_ns = min(timing.device_ns, wall_ns)
    gpu_ns = share_ns * worked_ns // wall_ns if wall_ns else 0
    return gpu_ns, {**parts, "stalled_ns": share_ns - gpu_ns, "timing_source": "cuda"}


def _phase(
    told_ns: int | None, timing: Timing, gpu_ns: int, weights: Sequence[int]
) -> tuple[int | None, Sequence[int | None]]:
    """A phase in the batch's own GPU time, and each request's part of it."""
    if told_ns is None:
        return None, [None] * len(weights)
    wall_ns = timing.end_ns - timing.start_ns
    phase_ns = told_ns * gpu_ns // wall_ns if wall_ns else 0
    return phase_ns, largest_remainder(phase_ns, weights)


def _request(
    row: _Row,
    share: Share,
    *,
    operation: Any,
    request_id: str,
    prefill_gpu_ns: int | None,
    decode_gpu_ns: int | None,
) -> RequestUsage:
    tenant, team, project, user, retry_of, identity_source, *_ = row.payer
    return RequestUsage(
        request_id=request_id,
        tenant=tenant,
        team=team,
        project=project,
        user=user,
        identity_source=identity_source,
        operation=operation,
        status=row.status,
        retry_of=retry_of,
        rows=row.rows,
        input_tokens=row.input_tokens,
        cached_input_tokens=row.cached_input_tokens,
        output_tokens=row.output_tokens,
        reasoning_tokens=row.reasoning_tokens,
        queue_ns=row.queue_ns,
        gpu_ns=share.gpu_ns,
        input_gpu_ns=share.input_gpu_ns,
        output_gpu_ns=share.output_gpu_ns,
        padding_gpu_ns=share.padding_ns,
        prefill_gpu_ns=prefill_gpu_ns,
        decode_gpu_ns=decode_gpu_ns,
    )


def _integer(field: str, value: Any) -> int:
    """Nothing else is reckoned with: a text times a number is a text of as many gigabytes.

    Raises:
        MeteringError: it is none; neither is true.
    """
    if type(value) is not int:
        raise MeteringError(f"{field}={value!r} is no integer")
    return value


@lru_cache(maxsize=256)
def _rule(recipe: RuleRecipe) -> ApportionmentRule:
    rule = rule_named(recipe.name, dict(recipe.coefficients_ps), recipe.calibration)
    if RULES[recipe.name].version != recipe.version:
        raise MeteringError(
            f"rule={recipe.name!r} version={recipe.version}: this version has "
            f"{RULES[recipe.name].version}; bring shipper and server to the same release"
        )
    return rule


class _Row(NamedTuple):
    request_id: str
    payer: Sequence[Any]
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    rows: int
    status: Any
    row_tokens: tuple[tuple[int, int], ...] = ()
    turns: tuple[Turn, ...] = ()
    queue_ns: int | None = None

    @property
    def work(self) -> Work:
        """Cached input tokens cost no prefill, so they bear no weight."""
        uncached = self.input_tokens - self.cached_input_tokens
        return Work(uncached, self.output_tokens, self.rows, self.row_tokens, self.turns)


_COUNTS = (
    "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "rows",
)  # fmt: skip
"""In the order of ``_Row``'s fields."""


def _rows(asked: Asked, took: Took) -> list[_Row]:
    """Raises MeteringError: a column is longer or shorter than the requests."""
    count, status = len(asked.requests), took.status
    columns = {"payer": asked.payer} | {
        name: column if isinstance(column, list) else [column] * count
        for name, column in took._asdict().items()
        if name in _COUNTS
    }
    for name, column in columns.items():
        if len(column) != count:
            raise MeteringError(f"{name} has {len(column)} entries for {count} requests")
        for value in column:
            if _integer(name, value) < 0:  # as a payer, Python would count it from the end
                raise MeteringError(f"{name}={value} is negative")
    requests = [
        _Row(clean(name), asked.payers[n], tokens_in, cached, tokens_out, reasoning, rows, status)
        for name, n, tokens_in, cached, tokens_out, reasoning, rows in zip(
            asked.requests, *columns.values(), strict=True
        )
    ]
    for position, more in took.more.items():
        if not position.isdecimal():
            raise MeteringError(f"more: {position!r} is no position")
        n = int(position)
        requests[n] = requests[n]._replace(
            status=more.get("status", status),
            row_tokens=tuple(
                (_integer("row_tokens", tokens[0]), _integer("row_tokens", tokens[1]))
                for tokens in more.get("row_tokens", ())
            ),
            turns=tuple(
                Turn(*(_integer("turns", value) for value in turn))
                for turn in more.get("turns", ())
            ),
            queue_ns=more.get("queue_ns"),
        )
    return requests
