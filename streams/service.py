"""How a service process starts and ends: settings that are checked before anything is connected to,
and one sentence where it can't go on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from metering.errors import MeteringError
from streams.settings import Settings


def service_settings() -> Settings:
    """Read the environment, and check what every service needs of it.

    Raises:
        MeteringError: a variable can't be used; the message names it.
    """
    settings = Settings.from_env()
    settings.kafka_client()
    return settings


@contextlib.contextmanager
def ended_by_a_sentence(service: str) -> Iterator[None]:
    """Turn an error that the project foresees into one sentence on stderr and exit code 1. Any
    other is a bug, and shows its traceback."""
    try:
        yield
    except MeteringError as exc:
        sys.exit(f"the {service} stops: {exc}")
    except BaseExceptionGroup as group:  # of tasks that ran side by side
        foreseen, others = group.split(MeteringError)
        if foreseen is None or others is not None:
            raise
        sys.exit(f"the {service} stops: {'; '.join(dict.fromkeys(_sentences(foreseen)))}")


def _sentences(group: BaseExceptionGroup[MeteringError]) -> Iterator[str]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _sentences(exc)
        else:
            yield str(exc)
