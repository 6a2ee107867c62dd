"""A batch as a server's record, and as an event in columns."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.stream_faults.journal import Array
from benchmarks.stream_faults.world import BATCH_SIZE, TENANTS, Source
from metering.records import (
    Asked,
    RuleRecipe,
    Timing,
    Took,
    encode_asked,
    encode_head,
    encode_record,
)

RULE = RuleRecipe("affine-shapley", (("input_token_ps", 1_000), ("output_token_ps", 1_000)))
"""Time is divided by tokens, as ``benchmarks.stream_faults.expected`` does anew."""
_PAYERS = [[tenant, "", "", "", "header", None] for tenant in TENANTS]
_LOGGED_PAYERS = [[tenant, "", "", "", None, "header"] for tenant in TENANTS]


def constant(source: Source) -> dict[str, Any]:
    return {
        "source": source.name,
        "boot_id": "boot",
        "model": source.model,
        "model_version": "1",
        "instance": f"{source.model}_0",
        "accelerator": source.accelerator,
        "device": "",
        "region": source.region,
        "deployment": "faults",
        "speedup": 1,
    }


def head_of(source: Source) -> bytes:
    return encode_head(constant(source), "chat", RULE)


def ids(source: Source, sequence: int) -> list[str]:
    return [f"{source.name}#{sequence}/{n}" for n in range(BATCH_SIZE)]


def record(
    head: bytes,
    source: Source,
    sequence: int,
    requests: Array,
    *,
    gpu_ns: int,
    end_ns: int,
    status: str,
) -> bytes:
    """As the server writes it."""
    asked = Asked(ids(source, sequence), _LOGGED_PAYERS, requests["tenant"].tolist())
    took = Took(
        input_tokens=requests["input_tokens"].tolist(),
        cached_input_tokens=0,
        output_tokens=requests["output_tokens"].tolist(),
        reasoning_tokens=0,
        status=status,
    )
    timing = Timing(1, 1 + gpu_ns, end_ns)
    return encode_record(head, sequence, timing, encode_asked(asked), took)


def event(
    source: Source, sequence: int, requests: Array, *, gpu_ns: int, end_ns: int, status: str
) -> bytes:
    """As a shipper sends it, with shares of its own."""
    document = {
        "columns": 1,
        **constant(source),
        "sequence": sequence,
        "executed": True,
        "batch_size": BATCH_SIZE,
        "wall_ns": gpu_ns,
        "gpu_ns": gpu_ns,
        "overlap_ns": None,
        "stalled_ns": 0,
        "prefill_ns": None,
        "decode_ns": None,
        "start_monotonic_ns": 1,
        "end_epoch_ns": end_ns,
        "timing_source": "monotonic",
        "apportionment_rule": "told/1",
        "requests": {
            "request_id": ids(source, sequence),
            "payers": _PAYERS,
            "payer": requests["tenant"].tolist(),
            "operation": "chat",
            "status": status,
            "rows": 1,
            "input_tokens": requests["input_tokens"].tolist(),
            "cached_input_tokens": 0,
            "output_tokens": requests["output_tokens"].tolist(),
            "reasoning_tokens": 0,
            "queue_ns": None,
            "gpu_ns": requests["gpu_ns"].tolist(),
            "input_gpu_ns": requests["input_gpu_ns"].tolist(),
            "padding_gpu_ns": 0,
            "prefill_gpu_ns": None,
            "decode_gpu_ns": None,
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()
