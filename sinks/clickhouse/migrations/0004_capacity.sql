-- Heartbeats of the hosts, and what was found when the server's counters were compared with the
-- stored usage. Each table is keyed by the heartbeat's identity, so that a repeated write is the
-- same write; a later verdict on the same heartbeat replaces the earlier one.

CREATE TABLE IF NOT EXISTS {database:Identifier}.capacity_device_beats
(
    time DateTime64(9, 'UTC'),
    source LowCardinality(String) COMMENT 'who tells: with sequence, the identity',
    sequence UInt64,
    host LowCardinality(String),
    boot_id LowCardinality(String) COMMENT 'the server that lives; empty where that is not known',
    device LowCardinality(String),
    accelerator LowCardinality(String),
    boot LowCardinality(String) COMMENT 'of the machine: the sums begin anew with it',
    wall_ns UInt64 COMMENT 'since the device''s board was begun',
    busy_ns UInt64 COMMENT 'union of its batches',
    idle_ns UInt64 COMMENT 'wall_ns - busy_ns',
    lost_ns UInt64 COMMENT 'part of busy_ns: batches whose process died in the middle',
    running UInt32
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (host, device, time, source, sequence);

CREATE VIEW IF NOT EXISTS {database:Identifier}.capacity_devices AS
SELECT * FROM {database:Identifier}.capacity_device_beats FINAL;

-- From heartbeat to heartbeat, cut at the minutes. What was idle is spread evenly between two
-- heartbeats, in whole nanoseconds: the parts sum to the whole. A board that was begun anew counts
-- from its own beginning.
CREATE VIEW IF NOT EXISTS {database:Identifier}.capacity_device_minutes AS
WITH
    beats AS
    (
        SELECT host, device, accelerator,
            toUnixTimestamp64Nano(time) AS end_ns, toInt64(wall_ns) AS wall, toInt64(idle_ns) AS idle,
            lagInFrame(end_ns, 1, toInt64(-1)) OVER w AS last_end_ns,
            lagInFrame(wall, 1, toInt64(0)) OVER w AS last_wall,
            lagInFrame(idle, 1, toInt64(0)) OVER w AS last_idle
        FROM {database:Identifier}.capacity_device_beats FINAL
        WINDOW w AS (PARTITION BY host, device, boot ORDER BY time, sequence
            ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
    ),
    steps AS
    (
        SELECT host, device, accelerator, end_ns,
            wall < last_wall AS anew,
            if(anew, end_ns - wall, last_end_ns) AS begin_ns,
            toInt128(if(anew, wall, wall - last_wall)) AS wall_step,
            toInt128(if(anew, idle, idle - last_idle)) AS idle_step,
            toInt128(end_ns - begin_ns) AS length
        FROM beats
        WHERE last_end_ns >= 0 AND end_ns > last_end_ns
    ),
    parts AS
    (
        SELECT host, device, accelerator, wall_step, idle_step, length,
            arrayJoin(range(intDiv(begin_ns, 60000000000), intDiv(end_ns - 1, 60000000000) + 1)) AS minute_number,
            greatest(begin_ns, minute_number * 60000000000) - begin_ns AS from_ns,
            least(end_ns, (minute_number + 1) * 60000000000) - begin_ns AS to_ns
        FROM steps
        WHERE length > 0
    )
SELECT
    toDateTime(minute_number * 60, 'UTC') AS minute,
    host, device, accelerator,
    toInt64(sum(intDiv(wall_step * to_ns, length) - intDiv(wall_step * from_ns, length))) AS wall_ns,
    toInt64(sum(intDiv(idle_step * to_ns, length) - intDiv(idle_step * from_ns, length))) AS idle_ns,
    wall_ns - idle_ns AS busy_ns
FROM parts
GROUP BY minute, host, device, accelerator;

CREATE TABLE IF NOT EXISTS {database:Identifier}.capacity_instance_beats
(
    time DateTime64(9, 'UTC'),
    source LowCardinality(String) COMMENT 'who tells: with sequence, the identity',
    sequence UInt64,
    host LowCardinality(String),
    boot_id LowCardinality(String),
    instance_source LowCardinality(String) COMMENT 'the source of its usage events',
    model LowCardinality(String),
    device LowCardinality(String),
    wall_ns UInt64 COMMENT 'since the instance began',
    busy_ns UInt64 COMMENT 'its share of the device',
    batch_ns UInt64 COMMENT 'wall time of its batches',
    idle_ns UInt64 COMMENT 'wall_ns - batch_ns',
    executions UInt64
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (host, instance_source, time, source, sequence);

CREATE VIEW IF NOT EXISTS {database:Identifier}.capacity_instances AS
SELECT * FROM {database:Identifier}.capacity_instance_beats FINAL;

CREATE TABLE IF NOT EXISTS {database:Identifier}.capacity_model_beats
(
    time DateTime64(9, 'UTC'),
    asked DateTime64(9, 'UTC') COMMENT 'the counters were taken between time and asked',
    source LowCardinality(String) COMMENT 'who tells: with sequence, the identity',
    sequence UInt64,
    host LowCardinality(String),
    boot_id LowCardinality(String),
    model LowCardinality(String),
    model_version LowCardinality(String),
    executions UInt64,
    rows UInt64,
    compute_infer_ns UInt64 COMMENT 'each execution once',
    successes UInt64 COMMENT 'requests, cache hits included',
    cache_hits UInt64,
    cache_misses UInt64,
    failures_rejected Nullable(UInt64) COMMENT 'timed out in the queue',
    failures_cancelled Nullable(UInt64),
    failures_backend Nullable(UInt64),
    failures_other Nullable(UInt64),
    queue_ns UInt64,
    batch_stats Array(Tuple(size UInt64, executions UInt64, compute_infer_ns UInt64))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (host, model, model_version, time, source, sequence);

CREATE VIEW IF NOT EXISTS {database:Identifier}.capacity_models AS
SELECT * FROM {database:Identifier}.capacity_model_beats FINAL;

CREATE TABLE IF NOT EXISTS {database:Identifier}.reconciliation_rows
(
    time DateTime64(9, 'UTC') COMMENT 'of the heartbeat',
    host LowCardinality(String),
    boot_id LowCardinality(String),
    model LowCardinality(String),
    model_version LowCardinality(String),
    agrees Bool,
    coverage_percent Decimal(5, 2) COMMENT 'rounded down: 100 says that not one request is missing',
    requests UInt64 COMMENT 'that Triton has counted: attributed + inferred + missing',
    attributed UInt64 COMMENT 'to stored lines',
    inferred UInt64 COMMENT 'known by the counters alone; never executed',
    missing UInt64,
    server_executions UInt64,
    missing_executions UInt64,
    missing_rows UInt64,
    missing_gpu_ns UInt64 COMMENT 'beyond what may be missing',
    inferred_by_outcome Map(String, UInt64),
    missing_by_outcome Map(String, UInt64),
    surplus Map(String, UInt64) COMMENT 'stored, and not counted by the server',
    confirmed Array(String) COMMENT 'what the heartbeat before had also found wrong',
    verdict String COMMENT 'as published, JSON',
    judged DateTime64(9, 'UTC') COMMENT 'the later replaces the earlier'
)
ENGINE = ReplacingMergeTree(judged)
PARTITION BY toYYYYMM(time)
ORDER BY (boot_id, model, model_version, time);

CREATE VIEW IF NOT EXISTS {database:Identifier}.reconciliations AS
SELECT * EXCEPT (judged) FROM {database:Identifier}.reconciliation_rows FINAL;
