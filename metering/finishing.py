"""From what a server has written down of a batch to its usage event. Pure.

What is worked out here is the division of the batch's time. The same record always gives the same
event, so one that is sent twice is the same message twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args

from pydantic import ValidationError

from metering.apportion import (
    EQUAL_SPLIT,
    ApportionmentRule,
    Share,
    largest_remainder,
    rule_named,
)
from metering.errors import MeteringError, UnreadableUsage
from metering.names import MAX_LENGTH
from metering.record_rows import Row, rows_of, text_of
from metering.records import CONSTANT, VERSION, Asked, RuleRecipe, Timing, Took, is_record
from metering.usage import (
    MAX_COUNT,
    OTHER_OPERATION,
    UNEXECUTED,
    Operation,
    RequestUsage,
    UsageBatch,
    describe,
    parse_usage,
    shown,
)
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
    faults: list[str] = []
    timing = _timing(Timing(**{field: document[field] for field in Timing._fields}), faults)
    operation = _operation(document["operation"], faults)
    rows = rows_of(
        Asked(**{field: document[field] for field in Asked._fields}),
        Took(**{field: document[field] for field in Took._fields}),
        faults,
    )
    gpu_ns, parts_of_wall = _gpu_time(timing)
    rule, shares = _divided(rule, gpu_ns, rows, faults)
    prefill_ns, prefill = _phase(
        timing.prefill_ns, timing, gpu_ns, [s.input_gpu_ns for s in shares]
    )
    decode_ns, decode = _phase(timing.decode_ns, timing, gpu_ns, [s.output_gpu_ns for s in shares])
    source, sequence = document["source"], document["sequence"]
    requests = tuple(
        _request(
            row,
            share,
            operation=operation,
            request_id=row.request_id or _made_id(source, sequence, position),
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
        invalid=text_of(faults),
        requests=requests,
    )


def _timing(told: Timing, faults: list[str]) -> Timing:
    """What is wrong with a part of it is not known, and said; the phases go together.

    Raises:
        MeteringError: it is not known from when to when the batch was.
    """
    for field in ("start_ns", "end_ns", "end_epoch_ns"):
        _integer(field, getattr(told, field))
    wall_ns = told.end_ns - told.start_ns
    timing = told
    for field, most_ns in (("share_ns", wall_ns), ("device_ns", MAX_COUNT - 1)):
        value = getattr(told, field)
        if value is not None and not (type(value) is int and 0 <= value <= most_ns):
            faults.append(f"{field}={shown(value)} is no integer from 0 to {most_ns}")
            unknown: dict[str, Any] = {field: None}
            timing = timing._replace(**unknown)
    phases = [ns for ns in (told.prefill_ns, told.decode_ns) if ns is not None]
    sound = all(type(ns) is int and ns >= 0 for ns in phases)
    if not sound or sum(phases) > wall_ns:
        faults.append(
            f"prefill_ns={shown(told.prefill_ns)} and decode_ns={shown(told.decode_ns)} are no "
            f"phases of wall_ns={wall_ns}"
        )
        timing = timing._replace(prefill_ns=None, decode_ns=None)
    return timing


def _operation(given: Any, faults: list[str]) -> str:
    if isinstance(given, str) and given in get_args(Operation):
        return given
    faults.append(f"operation={shown(given)} is none of {', '.join(get_args(Operation))}")
    return OTHER_OPERATION


def _divided(
    rule: ApportionmentRule, gpu_ns: int, rows: Sequence[Row], faults: list[str]
) -> tuple[ApportionmentRule, list[Share]]:
    """By the rule; by rows alone where it can't divide this batch, for the time is somebody's."""
    work = [row.work for row in rows]
    try:
        shares = rule.split(gpu_ns, work)
        parts = [(s.gpu_ns, s.input_gpu_ns, s.output_gpu_ns, s.padding_ns) for s in shares]
        if len(parts) == len(rows) and sum(p[0] for p in parts) == gpu_ns and _are_parts(parts):
            return rule, shares
        fault = f"its shares are no {len(rows)} parts of gpu_ns={gpu_ns}"
    except Exception as exc:  # noqa: BLE001  # a rule can be anybody's
        fault = f"{type(exc).__name__}: {exc}"
    faults.append(f"{rule.rule_id} can't divide the batch: {fault}"[:MAX_LENGTH])
    return EQUAL_SPLIT, EQUAL_SPLIT.split(gpu_ns, work)


def _are_parts(parts: Sequence[tuple[int, ...]]) -> bool:
    return all(
        set(map(type, part)) == {int}
        and min(part) >= 0
        and part[0] == part[1] + part[2]
        and part[3] <= part[0]
        for part in parts
    )


def _made_id(source: str, sequence: int, position: int) -> str:
    """For a request without an id: one that no other batch has."""
    made = f"{sequence}.{position}@{source}"
    if len(made) <= MAX_LENGTH:
        return made
    return f"{sequence}.{position}@sha256:{hashlib.sha256(source.encode()).hexdigest()}"


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
    row: Row,
    share: Share,
    *,
    operation: Any,
    request_id: str,
    prefill_gpu_ns: int | None,
    decode_gpu_ns: int | None,
) -> RequestUsage:
    tenant, team, project, user, retry_of, identity_source = row.payer
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
        invalid=row.invalid,
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
    return rule_named(recipe.name, dict(recipe.coefficients_ps), recipe.calibration, recipe.version)
