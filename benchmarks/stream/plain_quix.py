"""The same costs by Quix Streams as its documentation has it: expand, group by cohort, sum in a
tumbling window, publish the windows that are closed.

It prices each request in floats. It knows no duplicates and stores no lines: less work than the
worker does. Runs in an environment of its own (locks/bench.txt).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Sum

from benchmarks.stream.given import COMMIT_S, TOPIC, WINDOW_S, Given

given = Given.from_env()
USD_PER_GPU_NS = given.usd_per_gpu_ns()


def ended_ms(value: Any, _headers: Any, _timestamp: float, _kind: Any) -> int:
    return int(value["end_epoch_ns"] // 10**6)


def expand(batch: dict[str, Any]) -> list[dict[str, Any]]:
    usd_per_gpu_ns = USD_PER_GPU_NS[batch["accelerator"], batch["region"]]
    model, region = batch["model"], batch["region"]
    requests = batch["requests"]
    count = len(requests["request_id"])
    payers, gpu_ns = (
        c if isinstance(c, list) else [c] * count for c in (requests["payer"], requests["gpu_ns"])
    )
    return [
        {
            "cohort": f"{requests['payers'][payer][0]}|{model}|{region}",
            "cost_usd": own_ns * usd_per_gpu_ns,
        }
        for payer, own_ns in zip(payers, gpu_ns, strict=True)
    ]


def main() -> None:
    app = Application(
        broker_address=given.kafka,
        consumer_group=given.group,
        auto_offset_reset="earliest",
        commit_interval=COMMIT_S,
        state_dir=given.folder,
        loglevel="WARNING",
    )
    usage = app.topic(TOPIC, value_deserializer="json", timestamp_extractor=ended_ms)
    costs = app.topic(f"{given.group}-costs", value_serializer="json")
    frame = app.dataframe(usage)
    frame = frame.apply(expand, expand=True)
    frame = frame.group_by("cohort")
    frame = (
        frame.tumbling_window(timedelta(seconds=WINDOW_S), grace_ms=timedelta(seconds=2))
        .agg(cost_usd=Sum("cost_usd"))
        .final()
    )
    frame.to_topic(costs)
    app.run()


if __name__ == "__main__":
    main()
