"""docs/examples/live_costs.py against the real processes, as somebody else would run it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from metering.cloudevents import COST_REQUEST_TYPE, encode_headers
from metering.usage import UsageBatch
from streams.stack.config import StackConfig
from streams.stack.stack import Stack
from streams.topics import COST_REQUESTS
from triton_models.emitter.log import UsageLog

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "live_costs.py"
CHIP = "a chip of the tests"
PRICES = f"""
[[gpu_hour]]
id = "exact"
accelerator = "{CHIP}"
region = "*"
usd_per_gpu_hour = "3.60"
effective_from = 2020-01-01T00:00:00Z
"""
USD_PER_NS = Decimal("1e-12")
COLUMNS = {
    "tenant": "acme",
    "lines": 3,
    "source": "host/boot/1/a_0",
    "sequence": {"values": [7, 8], "codes": [0, 0, 1]},
    "position": [0, 1, 0],
    "model": "m",
    "cost_usd": ["0.1", "0.2", None],
    "input_tokens": [1, 2, 3],
    "output_tokens": 10,
}


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("example")
    (folder / "book.toml").write_text(PRICES)
    config = StackConfig(folder / "stack", price_book=folder / "book.toml", preferred_ports=False)
    async with Stack(config, only=("shipper", "worker")) as stack:
        yield stack


def test_the_example_is_short_and_needs_none_of_our_packages() -> None:
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) < 110
    imported = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
    assert imported - sys.stdlib_module_names == {"aiokafka"}


async def test_the_example_prints_a_tenants_costs_as_they_come_in_either_shape(
    stack: Stack, batch_of: Callable[..., UsageBatch], tmp_path: Path
) -> None:
    example = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(EXAMPLE), "acme",
        "--kafka", stack.settings.kafka, "--from-beginning",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    try:
        batch = emit(stack, batch_of)
        own = [r for r in batch.requests if r.tenant == "acme"]
        usd = sum(r.gpu_ns for r in own) * USD_PER_NS
        tokens = sum(r.input_tokens + r.output_tokens for r in own)
        requests = f"{usd:.18f} USD  {tokens} tokens  2 requests"
        window = f"  {usd:.18f} USD  2 requests"
        said = await lines_until(example, lambda all_: requests in all_ and has(all_, window))
        assert not has(said, "3 requests"), "another tenant's is not counted"
        which = r"window \d+ \+ (10|60|3600|86400) s  example in (local|all regions)"
        assert re.fullmatch(which + re.escape(window), first(said, window))

        await produce_columns(stack)
        three = f"{usd + Decimal('0.3'):.18f} USD  {tokens + 36} tokens  5 requests"
        four = f"{usd + Decimal('1.3'):.18f} USD  {tokens + 47} tokens  6 requests"
        said = await lines_until(example, lambda all_: has(all_, "6 requests"))
        assert [line for line in said if "without a price" in line] == [
            f"{three}, 1 without a price",
            f"{three}, 1 without a price",
            f"{four}, 1 without a price",
        ]
    finally:
        example.kill()
        await example.wait()


def emit(stack: Stack, batch_of: Callable[..., UsageBatch]) -> UsageBatch:
    source = "host/boot/1/example_0"
    log = UsageLog(stack.settings.log_dir / source, segment_bytes=64 * 1024)
    batch = batch_of(
        log.reserve(),
        source=source,
        model="example",
        accelerator=CHIP,
        gpu_ns=3 * 10**9,
        end_epoch_ns=time.time_ns(),
        requests=[{}, {"input_tokens": 7}, {"tenant": "globex"}],
    )
    log.append(batch.sequence, batch.model_dump_json().encode())
    return batch


async def produce_columns(stack: Stack) -> None:
    """Many lines of one tenant in one message; some again, as after a crash; and one more line."""
    last = {"sequence": 8, "position": [0, 1], "cost_usd": [None, "1"], "input_tokens": [3, 1]}
    again = COLUMNS | {"lines": 2} | last
    producer = AIOKafkaProducer(**stack.settings.kafka_client())
    await producer.start()
    try:
        for event_id, columns in (("0", COLUMNS), ("0", COLUMNS), ("1", again)):
            value = json.dumps(columns).encode()
            headers = encode_headers(COST_REQUEST_TYPE, "host/boot/1/a_0", event_id, time.time_ns())
            await producer.send_and_wait(COST_REQUESTS, value, key=b"acme", headers=headers)
    finally:
        await producer.stop()


async def lines_until(
    example: asyncio.subprocess.Process, enough: Callable[[list[str]], bool]
) -> list[str]:
    """What it has printed by then; fails with what it said if that does not come."""
    assert example.stdout is not None
    assert example.stderr is not None
    lines: list[str] = []
    while not enough(lines):
        try:
            line = await asyncio.wait_for(example.stdout.readline(), 60)
        except TimeoutError:
            line = b""
        if not line:
            example.kill()
            pytest.fail(f"{lines}\n{(await example.stderr.read()).decode()}")
        lines.append(line.decode().rstrip("\n"))
    return lines


def has(lines: list[str], text: str) -> bool:
    return any(text in line for line in lines)


def first(lines: list[str], text: str) -> str:
    return next(line for line in lines if text in line)
