"""What a front is told in its config.pbtxt. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metering.errors import MeteringError

MAX_IN_FLIGHT = 32
"""As many as the Python backend's ``thread-pool-size`` lets through per instance, by default."""


@dataclass(frozen=True, slots=True)
class FrontConfig:
    """``target`` is the model behind the front, in ``target_version`` ("": the latest).

    ``max_queue_size`` limits what waits in the front while ``max_in_flight`` requests are on their
    way; 0 is no limit.
    """

    target: str
    target_version: str
    target_is_metered: bool
    target_gives_receipts: bool
    max_in_flight: int
    max_queue_size: int


def front_config_of(given: Mapping[str, str]) -> FrontConfig:
    """Of the ``parameters`` of a config.

    Raises:
        MeteringError: a value that can't be used.
    """
    if not (target := given.get("target", "")):
        raise MeteringError("target: a front names the model behind it")
    metered = _truth(given, "target_is_metered", default=True)
    receipts = _truth(given, "target_gives_receipts", default=False)
    if receipts and not metered:
        raise MeteringError(
            f"target_gives_receipts='true' but target_is_metered='false': {target} can't give any"
        )
    return FrontConfig(
        target=target,
        target_version=_version(given),
        target_is_metered=metered,
        target_gives_receipts=receipts,
        max_in_flight=_whole(given, "max_in_flight", MAX_IN_FLIGHT, at_least=1),
        max_queue_size=_whole(given, "max_queue_size", 0, at_least=0),
    )


def _truth(given: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = given.get(name) or str(default).lower()
    if text not in ("true", "false"):
        raise MeteringError(f"{name}={text!r} is neither 'true' nor 'false'")
    return text == "true"


def _version(given: Mapping[str, str]) -> str:
    return str(_whole(given, "target_version", 0, at_least=1)) if "target_version" in given else ""


def _whole(given: Mapping[str, str], name: str, default: int, at_least: int) -> int:
    text = given.get(name) or str(default)
    if not (text.isascii() and text.isdecimal()) or int(text) < at_least:
        raise MeteringError(f"{name}={text!r} is not a whole number from {at_least} on")
    return int(text)
