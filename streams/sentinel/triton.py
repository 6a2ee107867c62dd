"""Triton's own counters: the statistics API, and the metrics for the reasons of failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import aiohttp
import tritonclient.grpc.aio as grpc_aio
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from metering.capacity import BatchStats, Failures, ModelCounters
from metering.errors import MeteringError
from streams.settings import Settings

log = logging.getLogger(__name__)

ANSWERS_WITHIN_S = 4.0
AT_A_TIME = 32
FRONT_PARAMETER = "target"
"""In the config.pbtxt of a front, which hands its requests on to the model that this names."""
METERED_PARAMETER = "metered"
_FAILURES = "nv_inference_request_failure_total"
_REASONS = {"REJECTED": "rejected", "CANCELED": "cancelled", "BACKEND": "backend"}

Key = tuple[str, str]
"""Model and version."""


class TritonCounters:
    """One server, asked again and again, for its models' configurations too: a model that is loaded
    again under the same name and version may have another one, and nothing else tells."""

    def __init__(self, settings: Settings) -> None:
        self._grpc, self._metrics = settings.triton_grpc, settings.triton_metrics
        self._client: Any = None
        self._told: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def ask(self) -> tuple[ModelCounters, ...]:
        """Every model that is executed itself and is to be metered: no ensemble and no front, which
        hand on.

        Raises:
            MeteringError: Triton does not answer.
        """
        try:
            if self._client is None:
                self._client = grpc_aio.InferenceServerClient(self._grpc)
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                statistics = await self._client.get_inference_statistics(as_json=False)
                found = await self._counted(list(statistics.model_stats))
        except (InferenceServerException, TimeoutError) as exc:
            await self.close()
            detail = exc.message() if isinstance(exc, InferenceServerException) else repr(exc)
            raise MeteringError(
                f"Triton at {self._grpc} does not answer: {detail}. "
                "Is it up? `meter up` starts one; --triton HOST:PORT names another"
            ) from exc
        failures = await self._failures()
        return tuple(
            sorted((_counters(s, failures) for s in found), key=lambda c: (c.model, c.version))
        )

    async def _counted(self, models: Sequence[Any]) -> list[Any]:
        """Some at a time: a server may have hundreds."""
        found: list[Any] = []
        for n in range(0, len(models), AT_A_TIME):
            some = models[n : n + AT_A_TIME]
            are = await asyncio.gather(*(self._is_counted(m.name, m.version) for m in some))
            found += [model for model, is_counted in zip(some, are, strict=True) if is_counted]
        return found

    async def _is_counted(self, name: str, version: str) -> bool:
        """One that was unloaded since its counters were taken is not; the others are, still."""
        try:
            answer = await self._client.get_model_config(name, version, as_json=False)
        except InferenceServerException:
            if await self._client.is_model_ready(name, version):
                raise
            return False
        config = answer.config
        return not (
            config.WhichOneof("scheduling_choice") == "ensemble_scheduling"
            or FRONT_PARAMETER in config.parameters
            or config.parameters[METERED_PARAMETER].string_value == "false"
        )

    async def _failures(self) -> dict[Key, Failures] | None:
        """``None``: the metrics endpoint does not answer, or is switched off."""
        try:
            timeout = aiohttp.ClientTimeout(total=ANSWERS_WITHIN_S)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"http://{self._metrics}/metrics") as answer,
            ):
                answer.raise_for_status()
                return failures_of(await answer.text())
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            self._say(f"Triton's metrics at {self._metrics} can't be read: {exc!r}")
            return None

    def _say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)


def failures_of(metrics: str) -> dict[Key, Failures]:
    """``nv_inference_request_failure`` by model, version and reason; a reason that this does not
    know is another one.

    Raises:
        ValueError: this is no exposition of metrics.
    """
    counts: dict[Key, dict[str, int]] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == _FAILURES:
                labels = sample.labels
                of = counts.setdefault((labels["model"], labels["version"]), {})
                reason = _REASONS.get(labels.get("reason", ""), "other")
                of[reason] = of.get(reason, 0) + int(sample.value)
    return {key: Failures(**of) for key, of in counts.items()}


def _counters(stats: Any, failures: Mapping[Key, Failures] | None) -> ModelCounters:
    of_requests = stats.inference_stats
    return ModelCounters(
        model=stats.name,
        version=stats.version,
        successes=of_requests.success.count,
        failures=None if failures is None else failures.get((stats.name, stats.version)),
        cache_hits=of_requests.cache_hit.count,
        cache_misses=of_requests.cache_miss.count,
        queue_ns=of_requests.queue.ns,
        batch_stats=tuple(_batches(stats.batch_stats)),
    )


def _batches(batch_stats: Iterable[Any]) -> Iterable[BatchStats]:
    for batch in batch_stats:
        infer = batch.compute_infer
        yield BatchStats(size=batch.batch_size, executions=infer.count, compute_infer_ns=infer.ns)
