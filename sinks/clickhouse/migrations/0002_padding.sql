-- GPU time that was spent on padding, a part of gpu_ns. A view keeps the columns that its SELECT *
-- had when it was made, so both are made anew.

ALTER TABLE {database:Identifier}.cost_request_lines
    ADD COLUMN IF NOT EXISTS padding_gpu_ns UInt64 DEFAULT 0 COMMENT 'part of gpu_ns' AFTER output_gpu_ns;

CREATE OR REPLACE VIEW {database:Identifier}.cost_requests AS
SELECT * FROM {database:Identifier}.cost_request_lines FINAL;

ALTER TABLE {database:Identifier}.cost_window_rows
    ADD COLUMN IF NOT EXISTS padding_gpu_ns UInt64 DEFAULT 0 COMMENT 'part of gpu_ns' AFTER output_gpu_ns;

CREATE OR REPLACE VIEW {database:Identifier}.cost_windows AS
SELECT * EXCEPT (version) FROM {database:Identifier}.cost_window_rows FINAL;
