"""Sound batches: what they say, and their bytes as a whole event or as a server's record.

What must be stored is reckoned from these numbers alone, without the code that is tested.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import NamedTuple

CHIP = "a chip of the fuzzer"
PRICES = f"""
[[gpu_hour]]
id = "exact"
accelerator = "{CHIP}"
region = "*"
usd_per_gpu_hour = "3.60"
effective_from = 1970-01-01T00:00:00Z
"""
"""A nanosecond costs exactly 1e-12 USD."""


class Part(NamedTuple):
    """One request. ``status`` is "ok" or one of those that never reached their model."""

    tenant: str
    input_tokens: int
    output_tokens: int
    gpu_ns: int
    status: str = "ok"


class Batch(NamedTuple):
    source: str
    sequence: int
    model: str
    end_epoch_ns: int
    parts: tuple[Part, ...]

    @property
    def gpu_ns(self) -> int:
        return sum(part.gpu_ns for part in self.parts)


_HEAD = (
    '{"source":%s,"sequence":%d,"boot_id":"boot","model":%s,"model_version":"1","instance":"i_0",'
    f'"accelerator":"{CHIP}","device":"","region":"local","deployment":"fuzz","speedup":1,'
    '"executed":%s,"batch_size":%d,"wall_ns":%d,"gpu_ns":%d,"overlap_ns":0,"stalled_ns":0,'
    '"prefill_ns":null,"decode_ns":null,"start_monotonic_ns":1,"end_epoch_ns":%d,'
    '"timing_source":"monotonic","apportionment_rule":"equal-split/1","requests":[%s]}'
)
_PART = (
    '{"request_id":"%s","tenant":%s,"team":"","project":"","user":"","identity_source":"parameter",'
    '"operation":"chat","status":"%s","retry_of":null,"rows":1,"input_tokens":%d,'
    '"cached_input_tokens":0,"output_tokens":%d,"reasoning_tokens":0,"queue_ns":null,'
    '"gpu_ns":%d,"input_gpu_ns":%d,"output_gpu_ns":%d,"padding_gpu_ns":0,'
    '"prefill_gpu_ns":null,"decode_gpu_ns":null}'
)
_RECORD = (
    '{"record":1,"source":%s,"boot_id":"boot","model":%s,"model_version":"1","instance":"i_0",'
    f'"accelerator":"{CHIP}","device":"","region":"local","deployment":"fuzz","speedup":1,'
    '"operation":"chat","rule":["equal-split",1,{},null],"requests":[%s],"payers":[%s],"payer":[%s],'
    '"sequence":%d,"start_ns":1,"end_ns":%d,"end_epoch_ns":%d,"share_ns":null,"device_ns":null,'
    '"prefill_ns":null,"decode_ns":null,"input_tokens":[%s],"cached_input_tokens":0,'
    '"output_tokens":[%s],"reasoning_tokens":0,"rows":1,"status":"%s","more":{}}'
)


_EACH = ("input_tokens", "output_tokens", "gpu_ns", "input_gpu_ns")
_SAME = (
    "operation", "status", "rows", "cached_input_tokens", "reasoning_tokens", "queue_ns",
    "padding_gpu_ns", "prefill_gpu_ns", "decode_gpu_ns",
)  # fmt: skip


@lru_cache(maxsize=4096)
def quoted(text: str) -> str:
    """As JSON, with everything outside of ASCII escaped."""
    return json.dumps(text)


def event(batch: Batch) -> bytes:
    """As the shipper sends it."""
    gpu_ns = batch.gpu_ns
    parts = ",".join(
        _PART
        % (
            f"{batch.sequence}.{position}",
            quoted(part.tenant),
            part.status,
            part.input_tokens,
            part.output_tokens,
            part.gpu_ns,
            part.gpu_ns // 3,
            part.gpu_ns - part.gpu_ns // 3,
        )
        for position, part in enumerate(batch.parts)
    )
    executed = "true" if batch.parts[0].status == "ok" else "false"
    return (
        _HEAD
        % (
            quoted(batch.source),
            batch.sequence,
            quoted(batch.model),
            executed,
            len(batch.parts),
            gpu_ns,
            gpu_ns,
            batch.end_epoch_ns,
            parts,
        )
    ).encode()


def columns(batch: Batch) -> bytes:
    """As the shipper sends it: the requests column by column."""
    whole = json.loads(event(batch))
    rows = whole.pop("requests")
    payers = list(dict.fromkeys(row["tenant"] for row in rows))
    requests = {
        "request_id": [row["request_id"] for row in rows],
        "payers": [[tenant, "", "", "", "parameter", None] for tenant in payers],
        "payer": [payers.index(row["tenant"]) for row in rows],
        **{name: [row[name] for row in rows] for name in _EACH},
        **{name: rows[0][name] for name in _SAME},
    }
    document = {"columns": 1, **whole, "requests": requests}
    return json.dumps(document, separators=(",", ":")).encode()


def record(batch: Batch) -> bytes:
    """As the server writes it. Time is divided equally: all parts must have the same."""
    count = len(batch.parts)
    payers = ",".join(f'[{quoted(part.tenant)},"","","",null,"parameter"]' for part in batch.parts)
    return (
        _RECORD
        % (
            quoted(batch.source),
            quoted(batch.model),
            ",".join(f'"{batch.sequence}.{n}"' for n in range(count)),
            payers,
            ",".join(map(str, range(count))),
            batch.sequence,
            1 + batch.gpu_ns,
            batch.end_epoch_ns,
            ",".join(str(part.input_tokens) for part in batch.parts),
            ",".join(str(part.output_tokens) for part in batch.parts),
            batch.parts[0].status,
        )
    ).encode()
