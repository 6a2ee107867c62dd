-- What was wrong with what a server told of a request or of its batch. A view keeps the columns that
-- its SELECT * had when it was made, so it is made anew.

ALTER TABLE {database:Identifier}.cost_request_lines
    ADD COLUMN IF NOT EXISTS invalid String DEFAULT '' COMMENT 'what was wrong with what was told of the request, and counts as 0; empty: nothing' AFTER apportionment_rule,
    ADD COLUMN IF NOT EXISTS batch_invalid String DEFAULT '' COMMENT 'what was wrong with what was told of its batch, and was left out; empty: nothing' AFTER invalid;

CREATE OR REPLACE VIEW {database:Identifier}.cost_requests AS
SELECT *,
    output_tokens * 1e9 / nullIf(batch_wall_ns, 0) AS output_tokens_per_second,
    output_tokens * 1e9 / nullIf(decode_gpu_ns, 0) AS output_tokens_per_decode_gpu_second
FROM {database:Identifier}.cost_request_lines FINAL;
