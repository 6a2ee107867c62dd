"""What the processes tell Prometheus. Labels are bounded: a few hundred models and reasons, never
users."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

MOST_MODELS = 300
OTHER = "(other)"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Buckets of what the stream waits for."""


class BoundedLabel:
    """Values of a label that come from outside: the first ``most`` are shown as they are, all later
    ones as ``OTHER``. Each value is a series for as long as the process lives."""

    def __init__(self, most: int = MOST_MODELS) -> None:
        self._most = most
        self._shown: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._shown:
            if len(self._shown) >= self._most:
                return OTHER
            self._shown.add(value)
        return value


def keep_only(gauge: Gauge, label: str, values: Collection[str]) -> None:
    """Remove what the gauge shows of other values of its one label."""
    for family in gauge.collect():
        for sample in family.samples:
            if sample.labels[label] not in values:
                gauge.remove(sample.labels[label])


class WorkerMetrics:
    """The stream: in, out, refused, duplicate; cost as a counter; how fresh it is."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.model = BoundedLabel()
        self.batches = Counter(
            "meter_batches", "Usage batches taken from the stream", registry=registry
        )
        self.duplicates = Counter(
            "meter_duplicate_batches", "Redelivered batches, not counted again", registry=registry
        )
        self.reread = Counter(
            "meter_reread_messages",
            "Messages that were passed over and read again",
            registry=registry,
        )
        self.refused = Counter(
            "meter_refused_messages",
            "Messages sent to the dead-letter topic",
            ["reason"],
            registry=registry,
        )
        self.requests = Counter(
            "meter_requests", "Requests priced", ["model", "pricing_status"], registry=registry
        )
        self.invalid = Counter(
            "meter_invalid_requests",
            "Requests of which something invalid was told; they are priced by what is known",
            ["model"],
            registry=registry,
        )
        self.cost_usd = Counter("meter_cost_usd", "Cost of requests", ["model"], registry=registry)
        self.tokens = Counter(
            "meter_tokens", "Tokens metered", ["model", "direction"], registry=registry
        )
        self.gpu_seconds = Counter(
            "meter_gpu_seconds", "GPU time apportioned", ["model"], registry=registry
        )
        self.write_seconds = Histogram(
            "meter_write_seconds",
            "Time of one take, until it is committed to Kafka",
            buckets=SECONDS,
            registry=registry,
        )
        self.insert_seconds = Histogram(
            "meter_insert_seconds",
            "Time of one insert of lines into ClickHouse",
            buckets=SECONDS,
            registry=registry,
        )
        self.inserted_lines = Counter(
            "meter_inserted_lines", "Lines that ClickHouse has taken", registry=registry
        )
        self.write_failures = Counter(
            "meter_write_failures", "Writes that will be tried again", registry=registry
        )
        self.counted_to = Gauge(
            "meter_counted_to_offset",
            "Offset up to which the usage topic is counted",
            ["partition"],
            registry=registry,
        )
        self.lag = Gauge(
            "meter_lag_messages",
            "Messages of the usage topic that are not committed as counted: its end as the broker "
            "says, at most some seconds ago, less the position of the worker",
            ["partition"],
            registry=registry,
        )
        self.watermark_delay = Gauge(
            "meter_watermark_delay_seconds",
            "Wall clock minus watermark",
            ["partition"],
            registry=registry,
        )
        self.missing = Gauge(
            "meter_missing_batches",
            "Sequences that no message has brought, of the sources that are known",
            ["partition"],
            registry=registry,
        )
        self.window_rows = Counter(
            "meter_window_rows", "Rows that were told of windows", registry=registry
        )
        self.tell_seconds = Histogram(
            "meter_tell_seconds",
            "Time of telling windows, ClickHouse and Kafka",
            buckets=SECONDS,
            registry=registry,
        )
        self.price_book_ok = Gauge(
            "meter_price_book_ok", "1: the price book on disk is the one in use", registry=registry
        )

    def keep_partitions(self, partitions: Collection[int]) -> None:
        """Show nothing any more of partitions that are another worker's by now."""
        kept = {str(partition) for partition in partitions}
        for gauge in (self.counted_to, self.lag, self.watermark_delay, self.missing):
            keep_only(gauge, "partition", kept)


class ShipperMetrics:
    """The way from the usage log to Kafka. Counts of losses outlive the process: they begin where
    the last shipper of the same log ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.shipped = Counter(
            "meter_shipped_batches", "Batches acknowledged by Kafka", registry=registry
        )
        self.redelivered = Counter(
            "meter_redelivered_batches",
            "Batches sent again after a send whose outcome is not known; Kafka may have had them",
            registry=registry,
        )
        self.lag_bytes = Gauge(
            "meter_shipper_lag_bytes", "Bytes of the usage log not yet shipped", registry=registry
        )
        self.lag_seconds = Gauge(
            "meter_shipper_lag_seconds",
            "Age of the oldest batch not yet shipped",
            registry=registry,
        )
        self.log_bytes = Gauge(
            "meter_usage_log_bytes", "Size of the usage log on this host", registry=registry
        )
        self.max_bytes = Gauge(
            "meter_usage_log_max_bytes", "Cap of the usage log on this host", registry=registry
        )
        self.failures = Counter(
            "meter_shipper_failures", "Sends that will be tried again", registry=registry
        )
        self.corrupt = Counter(
            "meter_usage_log_corrupt_frames", "Frames skipped as unreadable", registry=registry
        )
        self.missing = Counter(
            "meter_usage_log_missing_batches",
            "Gaps in the sequence of a source, whatever the reason",
            registry=registry,
        )
        self.dropped_batches = Counter(
            "meter_usage_log_dropped_batches",
            "Batches dropped unshipped, the log being at its cap",
            registry=registry,
        )
        self.dropped_requests = Counter(
            "meter_usage_log_dropped_requests", "Requests in dropped batches", registry=registry
        )
        self.dropped_bytes = Counter(
            "meter_usage_log_dropped_bytes", "Bytes of dropped segments", registry=registry
        )
        self.unwritten_batches = Counter(
            "meter_usage_log_unwritten_batches",
            "Batches that could not be written to the log, as on a full disk",
            registry=registry,
        )
        self.unwritten_requests = Counter(
            "meter_usage_log_unwritten_requests", "Requests in unwritten batches", registry=registry
        )


class DetectorMetrics:
    """What the detector saw, found and delivered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.windows = Counter(
            "meter_detector_windows", "Closed windows observed", registry=registry
        )
        self.anomalies = Counter(
            "meter_anomalies", "Anomalies published", ["driver"], registry=registry
        )
        self.refused = Counter(
            "meter_detector_refused_rows",
            "Window rows that can't be read or judged, and were passed over",
            ["reason"],
            registry=registry,
        )
        self.failed = Counter(
            "meter_detector_failed_windows",
            "Windows that could not be judged, for an error that the log has",
            registry=registry,
        )
        self.deliveries = Counter(
            "meter_alert_deliveries",
            "Alerts delivered; failed: a try, which is repeated; refused: for good, by the "
            "receiver; invalid: what the topic held was no anomaly",
            ["outcome"],
            registry=registry,
        )
        self.pending = Gauge(
            "meter_alerts_pending",
            "Published anomalies that a target has not got yet",
            ["target"],
            registry=registry,
        )
        self.refusals = Counter(
            "meter_alert_refusals",
            "Alerts that a target refused for good, or that expired in the topic",
            ["target"],
            registry=registry,
        )


class SentinelMetrics:
    """What the accelerators of this host could do, and did. Busy and idle are sums since a
    device's board was begun, and begin anew with the machine."""

    def __init__(self, registry: CollectorRegistry) -> None:
        device, instance = ["device", "accelerator"], ["model", "model_instance", "device"]
        self.busy_seconds = Gauge(
            "meter_device_busy_seconds",
            "Time in which any batch ran on the device",
            device,
            registry=registry,
        )
        self.idle_seconds = Gauge(
            "meter_device_idle_seconds",
            "Time in which no batch ran on the device",
            device,
            registry=registry,
        )
        self.lost_seconds = Gauge(
            "meter_device_lost_seconds",
            "Busy time of batches whose process died in the middle",
            device,
            registry=registry,
        )
        self.executions = Gauge(
            "meter_instance_executions",
            "Batches of an instance since it began",
            instance,
            registry=registry,
        )
        self.sent = Counter(
            "meter_capacity_heartbeats", "Heartbeats acknowledged by Kafka", registry=registry
        )
        self.failed = Counter(
            "meter_capacity_heartbeats_failed",
            "Sends of heartbeats that will be tried again",
            registry=registry,
        )
        self.dropped = Counter(
            "meter_capacity_heartbeats_dropped",
            "Heartbeats given up, Kafka having been away for too long",
            registry=registry,
        )
        self.uncounted = Counter(
            "meter_capacity_heartbeats_without_counters",
            "Heartbeats that claim no counters of Triton",
            registry=registry,
        )


class ReconcilerMetrics:
    """How the stored usage compares with Triton's counters; of all hosts together, by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.coverage = Gauge(
            "meter_reconciliation_coverage_ratio",
            "Requests that are attributed or inferred, of those that Triton has counted",
            ["model"],
            registry=registry,
        )
        self.missing_executions = Gauge(
            "meter_reconciliation_missing_executions",
            "Executions that Triton has counted and nothing stored tells of",
            ["model"],
            registry=registry,
        )
        self.inferred = Gauge(
            "meter_reconciliation_inferred_requests",
            "Requests that only the counters tell of; never executed",
            ["model"],
            registry=registry,
        )
        self.discrepancies = Counter(
            "meter_reconciliation_discrepancies",
            "Quantities that two heartbeats in a row have found wrong; each once until it heals",
            ["model", "quantity"],
            registry=registry,
        )
        self.verdicts = Counter(
            "meter_reconciliation_verdicts",
            "Models that were compared, each at one heartbeat",
            registry=registry,
        )
        self.heartbeats = Counter(
            "meter_reconciler_heartbeats", "Heartbeats stored", registry=registry
        )
        self.refused = Counter(
            "meter_reconciler_refused_heartbeats",
            "Heartbeats sent to the dead-letter topic",
            ["reason"],
            registry=registry,
        )
        self.failed = Counter(
            "meter_reconciler_failed_heartbeats",
            "Heartbeats that could not be compared, for an error that the log has",
            registry=registry,
        )
