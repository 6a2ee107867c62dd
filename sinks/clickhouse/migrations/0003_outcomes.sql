-- What became of a request, where it ran, the phases of its GPU time, and how fast it was: in its
-- batch's wall time, as its client saw it after the queue, and in its own share of the accelerator. A
-- view keeps the columns that its SELECT * had when it was made, so both are made anew.

ALTER TABLE {database:Identifier}.cost_request_lines
    ADD COLUMN IF NOT EXISTS device LowCardinality(String) DEFAULT '' COMMENT 'the accelerator''s name on its host' AFTER accelerator,
    ADD COLUMN IF NOT EXISTS executed Bool DEFAULT true COMMENT 'false: it never reached its model' AFTER status,
    ADD COLUMN IF NOT EXISTS batch_wall_ns UInt64 DEFAULT 0 COMMENT 'wall time of the whole batch' AFTER batch_size,
    ADD COLUMN IF NOT EXISTS prefill_gpu_ns Nullable(UInt64) COMMENT 'part of gpu_ns, where the model told its phases' AFTER padding_gpu_ns,
    ADD COLUMN IF NOT EXISTS decode_gpu_ns Nullable(UInt64) COMMENT 'part of gpu_ns, where the model told its phases' AFTER prefill_gpu_ns;

CREATE OR REPLACE VIEW {database:Identifier}.cost_requests AS
SELECT *,
    output_tokens * 1000000000 / nullIf(batch_wall_ns, 0) AS output_tokens_per_second,
    output_tokens * 1000000000 / nullIf(decode_gpu_ns, 0) AS output_tokens_per_decode_gpu_second
FROM {database:Identifier}.cost_request_lines FINAL;

ALTER TABLE {database:Identifier}.cost_window_rows
    ADD COLUMN IF NOT EXISTS wasted_gpu_ns UInt64 DEFAULT 0 COMMENT 'part of gpu_ns: answers that nobody got' AFTER padding_gpu_ns,
    ADD COLUMN IF NOT EXISTS cache_hits UInt64 DEFAULT 0 COMMENT 'part of requests: answered from Triton''s cache' AFTER wasted_gpu_ns,
    ADD COLUMN IF NOT EXISTS refused_requests UInt64 DEFAULT 0 COMMENT 'apart from requests: rejected, timed out or cancelled in the queue' AFTER cache_hits;

CREATE OR REPLACE VIEW {database:Identifier}.cost_windows AS
SELECT * EXCEPT (version),
    output_tokens * 1000000000 / nullIf(gpu_ns, 0) AS output_tokens_per_gpu_second
FROM {database:Identifier}.cost_window_rows FINAL;
