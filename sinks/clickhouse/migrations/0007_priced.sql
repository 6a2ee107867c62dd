-- Sums of the priced requests alone: what the costs are divided by. Each row from before the
-- migration is priced wholly, not at all, or in part. The tokens of the priced part are unknown in
-- the last case (NULL, and so are the quotients); the count of priced requests is always known.
ALTER TABLE {database:Identifier}.cost_window_rows
    ADD COLUMN IF NOT EXISTS priced_requests UInt64 DEFAULT requests - unpriced_requests COMMENT 'part of requests: those with a price' AFTER refused_requests,
    ADD COLUMN IF NOT EXISTS priced_input_tokens Nullable(UInt64) DEFAULT multiIf(unpriced_requests = 0, input_tokens, unpriced_requests = requests, 0, NULL) COMMENT 'part of input_tokens: of requests with a price; NULL where that is not known' AFTER priced_requests,
    ADD COLUMN IF NOT EXISTS priced_output_tokens Nullable(UInt64) DEFAULT multiIf(unpriced_requests = 0, output_tokens, unpriced_requests = requests, 0, NULL) COMMENT 'part of output_tokens: of requests with a price; NULL where that is not known' AFTER priced_input_tokens;

-- A view keeps the columns that its SELECT * had when it was created. In rows from before, the
-- stored quotients counted unpriced tokens too, and were 0 where no request had a price.
CREATE OR REPLACE VIEW {database:Identifier}.cost_windows AS
SELECT * EXCEPT (version)
    REPLACE (
        if(priced_input_tokens > 0, usd_per_million_input_tokens, NULL) AS usd_per_million_input_tokens,
        if(priced_output_tokens > 0, usd_per_million_output_tokens, NULL) AS usd_per_million_output_tokens,
        if(priced_requests > 0, usd_per_request, NULL) AS usd_per_request
    ),
    output_tokens * 1e9 / nullIf(gpu_ns, 0) AS output_tokens_per_gpu_second
FROM {database:Identifier}.cost_window_rows FINAL;

-- In floating point: a product of 64-bit integers wraps from 18 billion tokens on.
CREATE OR REPLACE VIEW {database:Identifier}.cost_requests AS
SELECT *,
    output_tokens * 1e9 / nullIf(batch_wall_ns, 0) AS output_tokens_per_second,
    output_tokens * 1e9 / nullIf(decode_gpu_ns, 0) AS output_tokens_per_decode_gpu_second
FROM {database:Identifier}.cost_request_lines FINAL;
