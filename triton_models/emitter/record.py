"""An executed batch as the event that is logged. Pure: times and answers are passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metering.apportion import Turn, Work
from metering.usage import Operation, RequestUsage, UsageBatch
from triton_models.emitter.facts import Facts
from triton_models.emitter.identity import MAX_LENGTH, Identity, clean


@dataclass(frozen=True, slots=True)
class Counted:
    """What a request was and used. An error's tokens are those that were worked on, mostly 0.

    ``row_tokens`` (uncached input and output of each row) and ``turns`` (its part in each step of
    an engine) are what some rules of apportionment go by, where the model can tell.
    """

    request_id: str
    identity: Identity
    rows: int
    ok: bool
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    row_tokens: tuple[tuple[int, int], ...] = ()
    turns: tuple[Turn, ...] = ()


def usage_of(
    facts: Facts,
    operation: Operation,
    sequence: int,
    counted: Sequence[Counted],
    *,
    start_ns: int,
    end_ns: int,
    end_epoch_ns: int,
) -> UsageBatch:
    """``start_ns`` and ``end_ns`` are monotonic; the batch's time is divided by ``facts.rule``.

    Cached input tokens cost no prefill, so they bear no weight. A request without an id gets one
    that no other batch has.
    """
    gpu_ns = end_ns - start_ns
    work = [
        Work(c.input_tokens - c.cached_input_tokens, c.output_tokens, c.rows, c.row_tokens, c.turns)
        for c in counted
    ]
    requests = tuple(
        RequestUsage(
            request_id=clean(c.request_id) or f"{sequence}.{position}@{facts.source}"[:MAX_LENGTH],
            tenant=c.identity.tenant,
            team=c.identity.team,
            project=c.identity.project,
            user=c.identity.user,
            identity_source=c.identity.source,
            operation=operation,
            status="ok" if c.ok else "error",
            retry_of=c.identity.retry_of,
            rows=c.rows,
            input_tokens=c.input_tokens,
            cached_input_tokens=c.cached_input_tokens,
            output_tokens=c.output_tokens,
            reasoning_tokens=c.reasoning_tokens,
            gpu_ns=share.gpu_ns,
            input_gpu_ns=share.input_gpu_ns,
            output_gpu_ns=share.output_gpu_ns,
            padding_gpu_ns=share.padding_ns,
        )
        for position, (c, share) in enumerate(
            zip(counted, facts.rule.split(gpu_ns, work), strict=True)
        )
    )
    return UsageBatch(
        source=facts.source,
        sequence=sequence,
        boot_id=facts.boot_id,
        model=facts.model,
        model_version=facts.model_version,
        instance=facts.instance,
        accelerator=facts.accelerator,
        region=facts.region,
        deployment=facts.deployment,
        speedup=facts.speedup,
        batch_size=sum(c.rows for c in counted),
        wall_ns=gpu_ns,
        gpu_ns=gpu_ns,
        start_monotonic_ns=start_ns,
        end_epoch_ns=end_epoch_ns,
        apportionment_rule=facts.rule.rule_id,
        requests=requests,
    )
