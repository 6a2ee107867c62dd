"""Who is metered, and at what prices; what checks must know of the product's contract."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

NS = 10**9
BATCH_SIZE = 32
LENGTHS = (10, 60, 3_600, 86_400)
"""Window lengths that there are or will be; lateness is certain for each of them."""
REQUIRED_LENGTHS = (10, 60)
COHORT = ("tenant", "model", "region")
"""The columns of ``cost_windows`` that, with length and start, make a window's key."""
ONCE = True
"""Whether a reader of committed records is promised each line and each letter once, and not only at
least once."""
RETENTION_S = 120
"""A window takes events until the watermark is so far behind its end."""

TENANTS = tuple(f"tenant-{n:02}" for n in range(20))
MODELS = ("llama-8b", "llama-70b", "mixtral-8x7b", "unlisted")
REGIONS = ("eu-west", "us-east", "ap-south")
ACCELERATORS = {
    "llama-8b": "NVIDIA L4",
    "llama-70b": "NVIDIA H100",
    "mixtral-8x7b": "NVIDIA A100",
    "unlisted": "a chip without a price",
}
NANO_USD_PER_HOUR = {
    "NVIDIA L4": 712_345_679,
    "NVIDIA A100": 1_640_000_003,
    "NVIDIA H100": 2_699_999_999,
}
"""In the first region, until the change; 100 USD-millis more in each further one."""
REGION_STEP_NANO = 100_000_000
CHANGE_STEP_NANO = 7_777_777
"""What every price rises by at the change."""
CHANGED_AGO_S = 24 * 3_600
"""Before the run began. What is later than that has the old price."""


@dataclass(frozen=True, slots=True)
class Source:
    """One emitting process."""

    name: str
    model: str
    region: str

    @property
    def accelerator(self) -> str:
        return ACCELERATORS[self.model]


def nano_price(model: str, region: str, changed: bool) -> int | None:
    """``None``: the book has none."""
    nano = NANO_USD_PER_HOUR.get(ACCELERATORS[model])
    if nano is None:
        return None
    return nano + REGION_STEP_NANO * REGIONS.index(region) + CHANGE_STEP_NANO * changed


def price_id(model: str, region: str, changed: bool) -> str:
    if nano_price(model, region, changed) is None:
        return ""
    return f"{ACCELERATORS[model]} {region} {'new' if changed else 'old'}"


def price_book(change_s: int) -> str:
    """TOML; the prices change at ``change_s`` (epoch)."""
    begins = {
        False: "2020-01-01T00:00:00Z",
        True: f"{datetime.fromtimestamp(change_s, UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    entries = []
    for model in MODELS:
        for region in REGIONS:
            for changed, begin in begins.items():
                nano = nano_price(model, region, changed)
                if nano is None:
                    continue
                usd = f"{nano // NS}.{nano % NS:09}"
                entries.append(
                    f'[[gpu_hour]]\nid = "{price_id(model, region, changed)}"\n'
                    f'accelerator = "{ACCELERATORS[model]}"\nregion = "{region}"\n'
                    f'usd_per_gpu_hour = "{usd}"\neffective_from = {begin}\n'
                )
    return "".join(entries)


def misses(end_ns: int, sent_ns: int, seconds: int) -> bool | None:
    """Whether an event that is sent at ``sent_ns`` (epoch) is too late for its window of that
    length; ``None`` where that depends on how fast others are."""
    window_s = seconds - end_ns // NS % seconds + end_ns // NS
    behind_s = sent_ns // NS - window_s
    if behind_s > RETENTION_S + 180:
        return True
    return False if behind_s < 30 else None
