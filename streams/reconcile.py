"""Metered usage against Triton's own counters, model by model.

Triton's side is ``batch_stats`` of the statistics API, which counts an execution once;
``inference_stats`` would count a batch's time for each of its requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tritonclient.grpc.aio as grpc_aio
from tritonclient.utils import InferenceServerException

from metering.errors import MeteringError
from sinks.clickhouse.queries import Metered

TOLERANCE = 0.10
FIRST_EXECUTION_NS = 50 * 10**6
"""The first execution of a process takes so much longer outside of the model than any later one."""


@dataclass(frozen=True, slots=True)
class ServerCounters:
    """What one model executed since its server started."""

    model: str
    executions: int
    rows: int
    gpu_ns: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both sides of one model. GPU time is measured inside the server's own measure, so it may
    be a little less, never more: by ``TOLERANCE``, and once by ``FIRST_EXECUTION_NS``."""

    server: ServerCounters
    metered: ServerCounters

    @property
    def executions_match(self) -> bool:
        return self.server.executions == self.metered.executions

    @property
    def rows_match(self) -> bool:
        return self.server.rows == self.metered.rows

    @property
    def gpu_time_ratio(self) -> float | None:
        """Metered over server; ``None``: the server has no time yet."""
        return None if self.server.gpu_ns == 0 else self.metered.gpu_ns / self.server.gpu_ns

    @property
    def gpu_time_matches(self) -> bool:
        gap_ns = self.server.gpu_ns - self.metered.gpu_ns
        return 0 <= gap_ns <= self.server.gpu_ns * TOLERANCE + FIRST_EXECUTION_NS

    @property
    def agrees(self) -> bool:
        return self.executions_match and self.rows_match and self.gpu_time_matches

    def as_json(self) -> dict[str, dict[str, int]]:
        return {
            name: {"server": getattr(self.server, name), "metered": getattr(self.metered, name)}
            for name in ("executions", "rows", "gpu_ns")
        }


async def server_counters(triton_grpc: str) -> list[ServerCounters]:
    """Every loaded model that is executed itself (an ensemble only counts its parts again).

    Raises:
        MeteringError: Triton does not answer at that address.
    """
    client = grpc_aio.InferenceServerClient(triton_grpc)
    try:
        statistics = await client.get_inference_statistics(as_json=False)
    except InferenceServerException as exc:
        raise MeteringError(
            f"Triton at {triton_grpc} does not answer: {exc.message()}. "
            "Is it up? `meter up` starts one; --triton HOST:PORT names another"
        ) from exc
    finally:
        await client.close()
    return sorted(
        (
            ServerCounters(
                stats.name,
                sum(b.compute_infer.count for b in stats.batch_stats),
                sum(b.batch_size * b.compute_infer.count for b in stats.batch_stats),
                sum(b.compute_infer.ns for b in stats.batch_stats),
            )
            for stats in statistics.model_stats
        ),
        key=lambda counters: counters.model,
    )


def reconcile(server: Sequence[ServerCounters], metered: Sequence[Metered]) -> list[Verdict]:
    """Every model that either side knows of."""
    ours = {m.model: ServerCounters(m.model, m.executions, m.rows, m.gpu_ns) for m in metered}
    theirs = {s.model: s for s in server}
    return [
        Verdict(
            theirs.get(model, ServerCounters(model, 0, 0, 0)),
            ours.get(model, ServerCounters(model, 0, 0, 0)),
        )
        for model in sorted(theirs.keys() | ours.keys())
    ]
