-- Lines, windows and anomalies. Each table is keyed by what its rows were made from, so that a
-- repeated write is the same write; the views read through FINAL and show every row once.

CREATE TABLE IF NOT EXISTS {database:Identifier}.cost_request_lines
(
    time DateTime64(9, 'UTC') COMMENT 'end of the batch',
    source LowCardinality(String) COMMENT 'emitting process: with sequence and position, the identity',
    sequence UInt64,
    position UInt32,
    boot_id LowCardinality(String),
    request_id String,
    retry_of Nullable(String),
    tenant LowCardinality(String),
    team LowCardinality(String),
    project LowCardinality(String),
    user String,
    identity_source LowCardinality(String),
    region LowCardinality(String),
    deployment LowCardinality(String),
    model LowCardinality(String),
    model_version LowCardinality(String),
    instance LowCardinality(String),
    accelerator LowCardinality(String),
    speedup UInt32 COMMENT 'above 1 only on a simulated accelerator',
    operation LowCardinality(String) COMMENT 'gen_ai.operation.name',
    status LowCardinality(String),
    rows UInt32,
    batch_size UInt32 COMMENT 'rows of the whole batch',
    input_tokens UInt64 COMMENT 'gen_ai.usage.input_tokens, cached ones included',
    cached_input_tokens UInt64,
    output_tokens UInt64 COMMENT 'gen_ai.usage.output_tokens, reasoning ones included',
    reasoning_tokens UInt64,
    queue_ns Nullable(UInt64),
    gpu_ns UInt64 COMMENT 'share of the batch''s time; the shares of a batch sum to it exactly',
    input_gpu_ns UInt64,
    output_gpu_ns UInt64,
    apportionment_rule LowCardinality(String),
    pricing_status LowCardinality(String) COMMENT 'priced | unpriced',
    price_id LowCardinality(String),
    usd_per_gpu_hour Nullable(Decimal(27, 9)),
    cost_usd Nullable(Decimal(38, 18)) COMMENT 'NULL where no price is known, never 0',
    input_cost_usd Nullable(Decimal(38, 18)),
    output_cost_usd Nullable(Decimal(38, 18))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (tenant, model, time, source, sequence, position);

CREATE VIEW IF NOT EXISTS {database:Identifier}.cost_requests AS
SELECT * FROM {database:Identifier}.cost_request_lines FINAL;

CREATE TABLE IF NOT EXISTS {database:Identifier}.cost_window_rows
(
    window_start DateTime64(3, 'UTC'),
    window_seconds UInt32,
    tenant LowCardinality(String),
    model LowCardinality(String),
    final Bool,
    counted_to UInt64 COMMENT 'offset in the usage topic up to which the row has counted',
    requests UInt64,
    retries UInt64,
    unpriced_requests UInt64,
    batch_size_sum UInt64,
    input_tokens UInt64,
    cached_input_tokens UInt64,
    output_tokens UInt64,
    gpu_ns UInt64,
    input_gpu_ns UInt64,
    output_gpu_ns UInt64,
    cost_usd Decimal(38, 18),
    input_cost_usd Decimal(38, 18),
    output_cost_usd Decimal(38, 18),
    usd_per_million_input_tokens Nullable(Decimal(38, 18)),
    usd_per_million_output_tokens Nullable(Decimal(38, 18)),
    usd_per_request Nullable(Decimal(38, 18)),
    version UInt64 COMMENT 'counted_to, then final: the larger replaces the smaller'
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(window_start)
ORDER BY (window_seconds, window_start, tenant, model);

CREATE VIEW IF NOT EXISTS {database:Identifier}.cost_windows AS
SELECT * EXCEPT (version) FROM {database:Identifier}.cost_window_rows FINAL;

CREATE TABLE IF NOT EXISTS {database:Identifier}.cost_anomaly_rows
(
    anomaly_id String,
    window_start DateTime64(3, 'UTC'),
    window_seconds UInt32,
    tenant LowCardinality(String),
    model LowCardinality(String),
    score Float64,
    score_unit LowCardinality(String),
    threshold Float64,
    expected_usd Decimal(38, 18),
    observed_usd Decimal(38, 18),
    usd_per_hour Decimal(38, 18) COMMENT 'what the change costs per hour',
    driver LowCardinality(String) COMMENT 'of the largest cause; empty where none is known',
    slice Map(String, String),
    share Float64,
    lever String,
    causes String COMMENT 'all causes, the largest first, as JSON'
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(window_start)
ORDER BY (window_start, tenant, model, anomaly_id);

CREATE VIEW IF NOT EXISTS {database:Identifier}.cost_anomalies AS
SELECT * FROM {database:Identifier}.cost_anomaly_rows FINAL;
