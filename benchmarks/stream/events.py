"""Usage as a fleet tells it: 500 cohorts, several sources, each with its own sequence.

Drawn with a seed, so that every run and every side sees the same. :func:`encode` is the one place
in which a batch becomes the bytes of a message, by the shipper's own function.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from metering.cloudevents import USAGE_BATCH_TYPE, encode_headers
from metering.records import Asked, RuleRecipe, Timing, Took, encode_asked, encode_head
from metering.records import encode_record as _record
from streams.publisher import Record
from streams.shipper.ship import event_of
from streams.topics import USAGE_BATCHES

TENANTS = tuple(f"tenant-{n:02}" for n in range(20))
MODELS = ("llama-8b", "llama-70b", "mixtral-8x7b", "qwen-32b", "mistral-24b")
REGIONS = ("eu-west", "eu-north", "us-east", "us-west", "ap-south")
COHORTS = len(TENANTS) * len(MODELS) * len(REGIONS)
ACCELERATOR = {
    "llama-8b": "NVIDIA L4",
    "llama-70b": "NVIDIA H100",
    "mixtral-8x7b": "NVIDIA H100",
    "qwen-32b": "NVIDIA A100",
    "mistral-24b": "NVIDIA A100",
}
USD_PER_GPU_HOUR = {"NVIDIA L4": 0.71, "NVIDIA A100": 1.64, "NVIDIA H100": 2.69}
INSTANCES = 2
"""Of each model in each region; every one is a source."""
REQUESTS_PER_S = 4_000
"""Of event time: a minute's window has 480 requests of a cohort."""
_RULE = RuleRecipe(
    "affine-shapley",
    (
        ("fixed_ps", 2_990_070_000),
        ("input_token_ps", 27_614_800),
        ("output_token_ps", 445_447_400),
    ),
)


@dataclass(slots=True)
class Source:
    """One model instance, with the head that all its records have."""

    name: str
    model: str
    region: str
    head: bytes
    sequence: int = 0


def price_book() -> str:
    """TOML with a price of every accelerator in every region."""
    return "".join(
        "[[gpu_hour]]\n"
        f'id = "{accelerator} {region}"\naccelerator = "{accelerator}"\nregion = "{region}"\n'
        f'usd_per_gpu_hour = "{usd + 0.1 * number:.2f}"\neffective_from = 2020-01-01T00:00:00Z\n'
        for accelerator, usd in USD_PER_GPU_HOUR.items()
        for number, region in enumerate(REGIONS)
    )


def encode(record: bytes) -> bytes:
    """The message that the shipper makes of a server's record."""
    return event_of(record)


def messages(requests: int, batch_size: int, *, seed: int, until_ns: int) -> Iterator[Record]:
    """As many whole batches as hold ``requests``, in the order of event time, the last of which
    ended shortly before ``until_ns`` (epoch)."""
    drawn = random.Random(seed)
    sources = all_sources()
    batches = requests // batch_size
    step_ns = batch_size * 10**9 // REQUESTS_PER_S
    for number in range(batches):
        source = drawn.choice(sources)
        end_ns = until_ns - (batches - number) * step_ns
        tenants = drawn.choices(TENANTS, k=batch_size)
        value = encode(batch(drawn, source, tenants, end_ns))
        headers = encode_headers(USAGE_BATCH_TYPE, source.name, str(source.sequence), None)
        source.sequence += 1
        yield Record(USAGE_BATCHES, source.name.encode(), value, headers)


def all_sources() -> list[Source]:
    sources = []
    for model, region, number in product(MODELS, REGIONS, range(INSTANCES)):
        host = f"{region}-gpu-{number:02}"
        name = f"{host}/5c1f7a3e/4711/{model}_0"
        constant = {
            "source": name,
            "boot_id": "5c1f7a3e",
            "model": model,
            "model_version": "1",
            "instance": f"{model}_0",
            "accelerator": ACCELERATOR[model],
            "device": f"{host}/gpu0",
            "region": region,
            "deployment": "production",
            "speedup": 1,
        }
        sources.append(Source(name, model, region, encode_head(constant, "chat", _RULE)))
    return sources


def batch(drawn: random.Random, source: Source, tenants: Sequence[str], end_ns: int) -> bytes:
    """The server's record of one batch: a request of each of ``tenants``, one of which may come
    several times."""
    size = len(tenants)
    named = sorted(set(tenants))
    asked = Asked(
        requests=[str(uuid.UUID(int=drawn.getrandbits(128), version=4)) for _ in range(size)],
        payers=[[t, "search", "answers", "", None, "header"] for t in named],
        payer=[named.index(t) for t in tenants],
    )
    took = Took(
        input_tokens=[int(drawn.lognormvariate(6.2, 0.9)) + 1 for _ in range(size)],
        cached_input_tokens=0,
        output_tokens=[int(drawn.lognormvariate(4.9, 0.7)) + 1 for _ in range(size)],
        reasoning_tokens=0,
    )
    wall_ns = drawn.randrange(20_000_000, 400_000_000)
    timing = Timing(end_ns - wall_ns, end_ns, end_ns, wall_ns)
    return _record(source.head, source.sequence, timing, encode_asked(asked), took)
