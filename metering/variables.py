"""The ``METER_*`` environment variables that there are; one that is set and is none of them is
most likely misspelt.

The variables of addresses and services are the fields of ``streams.settings.Settings``, which the
models in Triton do not import; a test compares the names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence

PREFIX = "METER_"
IN_TRITON = frozenset(
    {
        "METER_CALIBRATION",
        "METER_DEPLOYMENT",
        "METER_GATEWAY_KEY_FILE",
        "METER_GATEWAY_MAX_AGE_S",
        "METER_GATEWAY_MAX_USES",
        "METER_IDENTITY",
        "METER_IDENTITY_REFUSAL",
        "METER_LOG_DIR",
        "METER_LOG_FSYNC",
        "METER_LOG_FSYNC_MS",
        "METER_LOG_MAX_BYTES",
        "METER_LOG_SEGMENT_BYTES",
        "METER_REGION",
        "METER_SIM_SPEEDUP",
    }
)
"""What the models in Triton read."""
FILES_IN_TRITON = frozenset({"METER_CALIBRATION", "METER_GATEWAY_KEY_FILE"})
OF_SERVICES = frozenset(
    {
        "METER_ALERTMANAGER",
        "METER_ALERT_FLOOR_USD_PER_HOUR",
        "METER_CAPACITY_INTERVAL_S",
        "METER_CLICKHOUSE",
        "METER_CLICKHOUSE_CLUSTER",
        "METER_CLICKHOUSE_DATABASE",
        "METER_CLICKHOUSE_PASSWORD",
        "METER_CLICKHOUSE_USER",
        "METER_KAFKA",
        "METER_KAFKA_CA_FILE",
        "METER_KAFKA_PASSWORD",
        "METER_KAFKA_SASL_MECHANISM",
        "METER_KAFKA_SECURITY_PROTOCOL",
        "METER_KAFKA_USERNAME",
        "METER_LOG_DIR",
        "METER_LOG_MAX_BYTES",
        "METER_METRICS_HOST",
        "METER_METRICS_PORT",
        "METER_PRICE_BOOK",
        "METER_RECONCILE_GRACE_S",
        "METER_STATE_DIR",
        "METER_TRITON_GRPC",
        "METER_TRITON_HTTP",
        "METER_TRITON_METRICS",
        "METER_WEBHOOKS",
        "METER_WEBHOOK_SECRET",
    }
)
"""The fields of the settings; a model in Triton may see them and reads few of them."""
OF_THE_COMMAND = frozenset({"METER_JAVA", "METER_MODELS", "METER_TRITON_ENV"})
"""What the ``meter`` command reads beside the settings."""
KNOWN = IN_TRITON | OF_SERVICES | OF_THE_COMMAND
OF_TESTS = ("METER_TEST_", "METER_BENCH_", "METER_SHARED_")
_LINKED = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")


def unknown_variables(env: Mapping[str, str], known: Collection[str]) -> dict[str, str | None]:
    """Each variable of ``env`` that begins with ``METER_`` and is not ``known``, with the nearest
    name that is, if one is near.

    What Kubernetes sets for a Service whose name begins with ``meter-`` is left out, and what the
    project's own tests set.
    """
    found: dict[str, str | None] = {}
    for name in sorted(env):
        if not name.upper().startswith(PREFIX) or name in known or name.startswith(OF_TESTS):
            continue
        linked = _LINKED.search(name)
        if linked is not None and f"{name[: linked.start()]}_SERVICE_HOST" in env:
            continue
        found[name] = _nearest(name.upper(), sorted(known))
    return found


def _nearest(name: str, known: Sequence[str]) -> str | None:
    """One that is spelt nearly so, else one that goes on from there."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    near += [k for k in known if len(name) > len(PREFIX) and k.startswith(name)]
    return near[0] if near else None


def misspelt(env: Mapping[str, str]) -> list[str]:
    """A sentence for each ``METER_*`` variable that is set and that no process reads."""
    return as_warnings(unknown_variables(env, KNOWN))


def as_warnings(unknown: Mapping[str, str | None]) -> list[str]:
    """One sentence for each."""
    return [
        f"{name} is set, and no setting has this name: it is ignored."
        + (f" Is {near} meant?" if near is not None else "")
        for name, near in unknown.items()
    ]
