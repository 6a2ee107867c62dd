"""Live costs of one tenant: ``python live_costs.py acme --kafka 127.0.0.1:9092``.

Needs ``pip install 'aiokafka[lz4]'`` and nothing of this project; docs/topics.md has the topics.
"""

import argparse
import asyncio
import json
from decimal import Decimal

from aiokafka import AIOKafkaConsumer

REQUESTS, WINDOWS = "cost.requests.v1", "cost.windows.v1"
REMEMBERED = 100_000  # identities: delivery is at least once


def per_line(event, field):
    """One value a line: a field is a list with an entry a line, or one value for all of them."""
    value = event.get(field)
    return value if isinstance(value, list) else [value] * event.get("lines", 1)


class Costs:
    def __init__(self):
        self.usd, self.tokens, self.requests, self.unpriced = Decimal(0), 0, 0, 0
        self.seen, self.windows = {}, {}

    def is_new(self, headers):
        identity = headers["ce_source"], headers["ce_id"]
        if identity in self.seen:
            return False
        self.seen[identity] = None
        if len(self.seen) > REMEMBERED:
            del self.seen[next(iter(self.seen))]  # the oldest
        return True

    def add_requests(self, event):
        costs = per_line(event, "cost_usd")
        self.requests += len(costs)
        self.unpriced += costs.count(None)  # no price is known: that is not 0
        self.usd += sum(Decimal(cost) for cost in costs if cost is not None)
        for field in ("input_tokens", "output_tokens"):
            self.tokens += sum(count or 0 for count in per_line(event, field))
        unpriced = f", {self.unpriced} without a price" if self.unpriced else ""
        said = f"{self.tokens} tokens  {self.requests} requests{unpriced}"
        print(f"{self.usd:.9f} USD  {said}", flush=True)

    def add_window(self, key, row):
        """A row replaces those of its key that have counted less far."""
        if not row["final"] or row["counted_to"] <= self.windows.get(key, -1):
            return
        self.windows[key] = row["counted_to"]
        window = f"window {row['window_start_ms'] // 1000} + {row['window_seconds']} s"
        said = f"{row['model']}  {Decimal(row['cost_usd']):.9f} USD  {row['requests']} requests"
        print(f"{window}  {said}", flush=True)


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tenant")
    parser.add_argument("--kafka", default="127.0.0.1:9092")
    parser.add_argument("--from-beginning", action="store_true", help="else what comes from now on")
    args = parser.parse_args()
    start = "earliest" if args.from_beginning else "latest"
    cluster = {"bootstrap_servers": args.kafka, "auto_offset_reset": start}
    costs = Costs()
    async with AIOKafkaConsumer(REQUESTS, WINDOWS, **cluster) as consumer:
        async for message in consumer:
            event = json.loads(message.value)
            if event["tenant"] != args.tenant or not costs.is_new(dict(message.headers)):
                continue
            if message.topic == WINDOWS:
                costs.add_window(message.key, event)
            else:
                costs.add_requests(event)


if __name__ == "__main__":
    asyncio.run(main())
