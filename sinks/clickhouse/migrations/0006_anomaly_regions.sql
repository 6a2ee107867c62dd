-- The region of an anomaly's windows. A view keeps the columns that its SELECT * had when it was
-- made, so it is made anew.
ALTER TABLE {database:Identifier}.cost_anomaly_rows
    ADD COLUMN IF NOT EXISTS region LowCardinality(String) COMMENT 'empty in rows from before regions were told apart' AFTER model,
    MODIFY ORDER BY (window_start, tenant, model, anomaly_id, region);

CREATE OR REPLACE VIEW {database:Identifier}.cost_anomalies AS
SELECT * FROM {database:Identifier}.cost_anomaly_rows FINAL;
