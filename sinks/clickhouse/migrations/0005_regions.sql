-- Windows per region too. Rows from before have none: they are of all regions.
ALTER TABLE {database:Identifier}.cost_window_rows
    ADD COLUMN IF NOT EXISTS region LowCardinality(String) COMMENT 'empty in rows from before regions were told apart' AFTER model,
    MODIFY ORDER BY (window_seconds, window_start, tenant, model, region);

CREATE OR REPLACE VIEW {database:Identifier}.cost_windows AS
SELECT * EXCEPT (version),
    output_tokens * 1000000000 / nullIf(gpu_ns, 0) AS output_tokens_per_gpu_second
FROM {database:Identifier}.cost_window_rows FINAL;
