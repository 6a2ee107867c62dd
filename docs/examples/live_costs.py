"""Live costs of one tenant: ``python live_costs.py acme --kafka 127.0.0.1:9092``.
Needs ``pip install 'aiokafka[zstd]'`` and nothing of this project; docs/topics.md has the topics.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
from decimal import Decimal

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

REQUESTS, WINDOWS, REMEMBERED = "cost.requests.v1", "cost.windows.v1", 100_000


def per_line(event, field):
    """One value a line: a list, one value for all, or few values and each line's place in them."""
    value = event[field]
    if isinstance(value, dict):
        codes = value["codes"]  # or the name of the field that has the same codes
        codes = event[codes]["codes"] if isinstance(codes, str) else codes
        return [value["values"][code] for code in codes]
    return value if isinstance(value, list) else [value] * event["lines"]


class Costs:
    def __init__(self):
        self.usd, self.tokens, self.requests, self.unpriced = Decimal(0), 0, 0, 0
        self.seen, self.windows = {}, {}

    def is_new(self, line):
        if line in self.seen:
            return False
        if len(self.seen) == REMEMBERED:
            del self.seen[next(iter(self.seen))]  # the oldest: delivery is at least once
        self.seen[line] = None
        return True

    def add_requests(self, _, event):
        fields = ("source", "sequence", "position", "cost_usd", "input_tokens", "output_tokens")
        for *line, cost, given, made in zip(*(per_line(event, f) for f in fields), strict=True):
            if self.is_new(tuple(line)):
                self.requests += 1
                self.tokens += given + made
                self.unpriced += cost is None  # no price is known: that is not 0
                self.usd += Decimal(cost or 0)
        said = f"{self.usd:f} USD  {self.tokens} tokens  {self.requests} requests"
        print(said + f", {self.unpriced} without a price" * (self.unpriced > 0), flush=True)

    def add_window(self, key, row):
        """A row replaces those of its key that have counted less far."""
        if not row["final"] or row["counted_to"] <= self.windows.get(key, -1):
            return
        self.windows[key] = row["counted_to"]
        start, where = row["window_start_ms"] // 1000, row.get("region") or "all regions"
        at = f"window {start} + {row['window_seconds']} s  {row['model']} in {where}"
        print(f"{at}  {Decimal(row['cost_usd']):f} USD  {row['requests']} requests", flush=True)


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tenant")
    parser.add_argument("--kafka", default="127.0.0.1:9092")
    parser.add_argument("--from-beginning", action="store_true", help="else what comes from now on")
    args = parser.parse_args()
    start = "earliest" if args.from_beginning else "latest"
    cluster, costs = {"bootstrap_servers": args.kafka, "auto_offset_reset": start}, Costs()
    consumer = await connect(args.kafka, cluster)
    try:
        async for message in consumer:
            try:
                event = json.loads(message.value)
                add = costs.add_window if message.topic == WINDOWS else costs.add_requests
                if event["tenant"] == args.tenant:
                    add(message.key, event)
            except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as exc:
                print(f"{message.topic}@{message.offset} is passed over: {exc!r:.99}", flush=True)
    finally:
        await consumer.stop()


async def connect(address, cluster):
    logging.disable(logging.CRITICAL)  # the reason is said once, below
    consumer = AIOKafkaConsumer(REQUESTS, WINDOWS, **cluster)
    try:
        await consumer.start()
    except (KafkaError, OSError, ValueError, OverflowError) as exc:
        await consumer.stop()
        sys.exit(f"Kafka at {address!r} does not answer: {exc}. --kafka takes HOST:PORT")
    finally:
        logging.disable(logging.NOTSET)
    return consumer


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(0)  # nothing is left to be written
