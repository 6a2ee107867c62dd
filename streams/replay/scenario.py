"""The demo's traffic: three tenants in steady bursts, and one incident with one culprit.

Every stream (model × tenant) draws from a generator of its own, so that an incident in one
changes nothing in any other. All times are multiples of a millisecond.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

from streams.replay.plan import PlannedRequest, TextPrompt, TextToEmbed, TokenPrompt

if TYPE_CHECKING:
    from metering.costs import Driver

Incident = Literal["long-prompts", "batch-collapse", "retry-storm", "price-change"]
INCIDENTS: tuple[Incident, ...] = get_args(Incident)

CALM = "calm"
INCIDENT = "incident"
LONG_PROMPT_FACTOR = 8
RETRY_DELAYS_MS = (250, 750, 1250)
"""Between the bursts, so that the retries of three bursts meet and form a batch of their own."""


@dataclass(frozen=True, slots=True)
class PriceChange:
    """From the incident's start, the price of ``model``'s accelerator in its region, times this."""

    model: str
    factor: Decimal


@dataclass(frozen=True, slots=True)
class Scenario:
    """What an incident is, and what the root-cause search should say of it."""

    incident: Incident
    summary: str
    expected_driver: Driver
    expected_tenant: str
    expected_model: str
    price_change: PriceChange | None = None


SCENARIOS: Mapping[Incident, Scenario] = MappingProxyType(
    {
        "long-prompts": Scenario(
            incident="long-prompts",
            summary="acme's prompts to llama_8b_sim become eight times as long",
            expected_driver="input_length",
            expected_tenant="acme",
            expected_model="llama_8b_sim",
        ),
        "batch-collapse": Scenario(
            incident="batch-collapse",
            summary="initech's requests to llama_70b_sim come one by one: no more batches of 8",
            expected_driver="gpu_time_per_token",
            expected_tenant="initech",
            expected_model="llama_70b_sim",
        ),
        "retry-storm": Scenario(
            incident="retry-storm",
            summary="globex sends each of its requests to llama_8b_sim three more times",
            expected_driver="volume",
            expected_tenant="globex",
            expected_model="llama_8b_sim",
        ),
        "price-change": Scenario(
            incident="price-change",
            summary="the accelerator of llama_70b_sim costs 2.5 times as much in its region",
            expected_driver="price",
            expected_tenant="initech",
            expected_model="llama_70b_sim",
            price_change=PriceChange("llama_70b_sim", Decimal("2.5")),
        ),
    }
)


def demo_plan(
    calm_s: float, incident_s: float, incident: Incident, seed: int
) -> list[PlannedRequest]:
    """Calm traffic for ``calm_s``, then ``incident_s`` of the incident, in order of time.

    What is sent before ``calm_s`` has phase ``calm``. In the incident only ``expected_tenant``'s
    requests to ``expected_model`` differ from what calm traffic would have been. Retries and
    spread-out bursts of the last second may end up to 1.25 s after the end.
    """
    calm_ms, end_ms = round(calm_s * 1000), round((calm_s + incident_s) * 1000)
    calm_traffic = [planned for stream in _STREAMS for planned in stream.requests(end_ms, seed)]
    # By index within a burst, so that tenants alternate and share the server's batches evenly.
    calm_traffic.sort(key=lambda planned: (planned.at_ms, planned.index))
    requests: list[PlannedRequest] = []
    for planned in calm_traffic:
        if planned.at_ms < calm_ms:
            requests.append(planned.to_request(CALM))
        else:
            requests.extend(_in_incident(incident, planned))
    return sorted(requests, key=lambda request: request.at_s)


@dataclass(frozen=True, slots=True)
class _Planned:
    """A request of calm traffic, with its place in its burst."""

    at_ms: int
    gap_ms: int  # between the burst's requests, if they were spread out evenly
    index: int
    model: str
    person: tuple[str, str, str, str]
    inputs: TextPrompt | TokenPrompt | TextToEmbed
    request_id: str

    def to_request(self, phase: str) -> PlannedRequest:
        tenant, team, project, user = self.person
        return PlannedRequest(
            at_s=self.at_ms / 1000,
            model=self.model,
            tenant=tenant,
            team=team,
            project=project,
            user=user,
            inputs=self.inputs,
            request_id=self.request_id,
            retry_of=None,
            phase=phase,
        )


def _in_incident(incident: Incident, planned: _Planned) -> list[PlannedRequest]:
    scenario = SCENARIOS[incident]
    request = planned.to_request(INCIDENT)
    if (request.tenant, request.model) != (scenario.expected_tenant, scenario.expected_model):
        return [request]
    if incident == "long-prompts" and isinstance(request.inputs, TokenPrompt):
        longer = replace(
            request.inputs, input_tokens=request.inputs.input_tokens * LONG_PROMPT_FACTOR
        )
        return [replace(request, inputs=longer)]
    if incident == "batch-collapse":
        alone_ms = planned.at_ms + planned.index * planned.gap_ms
        return [replace(request, at_s=alone_ms / 1000)]
    if incident == "retry-storm":
        retries = [
            replace(
                request,
                at_s=(planned.at_ms + delay_ms) / 1000,
                request_id=f"{request.request_id}-retry-{attempt}",
                retry_of=request.request_id,
            )
            for attempt, delay_ms in enumerate(RETRY_DELAYS_MS, 1)
        ]
        return [request, *retries]
    return [request]  # a price change is not in the traffic


# Tenant → (team, project, user); a tenant's requests go round.
_PEOPLE: Mapping[str, tuple[tuple[str, str, str], ...]] = MappingProxyType(
    {
        "acme": (
            ("search", "catalog", "ada"),
            ("search", "ranking", "alan"),
            ("support", "assistant", "grace"),
        ),
        "globex": (
            ("research", "summaries", "edsger"),
            ("research", "summaries", "barbara"),
            ("sales", "outreach", "donald"),
        ),
        "initech": (
            ("legal", "contracts", "frances"),
            ("legal", "discovery", "john"),
        ),
    }
)

_TEXT = (
    "the quick report of last week shows how our new service can answer a long question about "
    "travel and weather while people in the old town read their mail and ask for help with a "
    "small order that has not come to the house near river since early spring"
)
_WORDS = _TEXT.split()


def _words(rng: random.Random, least: int, most: int) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(least, most)))


def _about(rng: random.Random, mean: int, deviation: int) -> int:
    """A normal draw, cut off at three deviations."""
    drawn = round(rng.gauss(mean, deviation))
    return min(max(drawn, mean - 3 * deviation), mean + 3 * deviation)


def _llama_8b(rng: random.Random) -> TokenPrompt:
    return TokenPrompt(_about(rng, 400, 40), 64, _about(rng, 60, 6))


def _llama_70b(rng: random.Random) -> TokenPrompt:
    # Short answers: one simulated GPU must keep up even where no batches form.
    return TokenPrompt(_about(rng, 600, 60), 128, _about(rng, 16, 2))


def _tiny_llm(rng: random.Random) -> TextPrompt:
    return TextPrompt(_words(rng, 12, 24), rng.randint(24, 40))


def _embedder(rng: random.Random) -> TextToEmbed:
    return TextToEmbed(_words(rng, 12, 40))


@dataclass(frozen=True, slots=True)
class _Stream:
    """Bursts to one model: every ``period_ms``, from ``offset_ms``, so many per tenant.

    The offsets keep the models' bursts apart, which share a machine where they are simulated.
    """

    model: str
    period_ms: int
    offset_ms: int
    tenants: Mapping[str, int]
    draw: Callable[[random.Random], TextPrompt | TokenPrompt | TextToEmbed]

    def requests(self, end_ms: int, seed: int) -> Iterator[_Planned]:
        for tenant, per_burst in self.tenants.items():
            # Made-up traffic is not a secret; a text seeds the same on every machine.
            rng = random.Random(f"{seed}/{self.model}/{tenant}")  # noqa: S311
            people = itertools.cycle(_PEOPLE[tenant])
            numbers = itertools.count()
            for at_ms in range(self.offset_ms, end_ms, self.period_ms):
                for index in range(per_burst):
                    yield _Planned(
                        at_ms=at_ms,
                        gap_ms=self.period_ms // per_burst,
                        index=index,
                        model=self.model,
                        person=(tenant, *next(people)),
                        inputs=self.draw(rng),
                        request_id=f"demo-{seed}-{self.model}-{tenant}-{next(numbers)}",
                    )


_STREAMS = (
    _Stream("llama_8b_sim", 500, 0, {"acme": 6, "globex": 6}, _llama_8b),
    _Stream("llama_70b_sim", 1000, 100, {"initech": 8}, _llama_70b),
    _Stream("tiny_llm", 1000, 200, {"acme": 3, "globex": 3, "initech": 2}, _tiny_llm),
    _Stream("embedder", 1000, 350, {"acme": 4, "globex": 4}, _embedder),
)
