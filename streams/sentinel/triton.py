"""Triton's own counters: the statistics API, and the metrics for the reasons of failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
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
FRONT_PARAMETER = "target"
"""In the config.pbtxt of a front, which hands its requests on to the model that this names."""
METERED_PARAMETER = "metered"
_FAILURES = "nv_inference_request_failure_total"
_REASONS = {"REJECTED": "rejected", "CANCELED": "cancelled", "BACKEND": "backend"}

Key = tuple[str, str]
"""Model and version."""


class TritonCounters:
    """One server, asked again and again. What it says of its models' configuration is asked once
    for each model, and again when the server was away."""

    def __init__(self, settings: Settings) -> None:
        self._grpc, self._metrics = settings.triton_grpc, settings.triton_metrics
        self._client: Any = None
        self._counted: dict[Key, bool] = {}
        self._told: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._counted.clear()
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
                found = [stats for stats in statistics.model_stats if await self._is_counted(stats)]
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

    async def _is_counted(self, stats: Any) -> bool:
        key = (stats.name, stats.version)
        if key not in self._counted:
            answer = await self._client.get_model_config(*key, as_json=False)
            config = answer.config
            self._counted[key] = not (
                config.WhichOneof("scheduling_choice") == "ensemble_scheduling"
                or FRONT_PARAMETER in config.parameters
                or config.parameters[METERED_PARAMETER].string_value == "false"
            )
        return self._counted[key]

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
