-- The identity of a device's board, and when it was read. Without them a heartbeat of a second
-- sentinel, or of a second log folder, looked like a board that began anew. Views keep the columns
-- that their SELECT * had when they were made, so they are made anew.

ALTER TABLE {database:Identifier}.capacity_device_beats
    ADD COLUMN IF NOT EXISTS board LowCardinality(String) COMMENT 'identity of the device''s board; empty in rows from before it was told' AFTER boot,
    ADD COLUMN IF NOT EXISTS read DateTime64(9, 'UTC') DEFAULT time COMMENT 'when the board was read' AFTER board,
    MODIFY ORDER BY (host, device, time, source, sequence, board);

CREATE OR REPLACE VIEW {database:Identifier}.capacity_devices AS
SELECT * FROM {database:Identifier}.capacity_device_beats FINAL;

-- From heartbeat to heartbeat of one board, cut at the minutes. Always: wall_ns is at most the time
-- that has passed, and wall_ns = busy_ns + idle_ns, none of them negative.
--   beats:  Rows from before boards had an identity are told apart by when their board was begun:
--           10 s and more apart are two boards. A DateTime ends in 2106.
--   boards: A board's wall time only grows, so it has the order in which the board was read.
--   placed: up to each heartbeat, as much wall time as the clock has passed, and no more. Where the
--           clock was set back, the rest waits until the clock has come past where it was.
--   steps:  What one heartbeat adds, spread evenly from begin_ns to end_ns. A clock that was set
--           forward, or a machine that slept, leaves a gap in front of it. The first heartbeat of a
--           board counts from the board's beginning, and not before the device's last heartbeat.
--   parts:  of one minute. Of boards of one device that overlap, wall time counts once; their busy
--           times add up, to the wall time at most.
CREATE OR REPLACE VIEW {database:Identifier}.capacity_device_minutes AS
WITH
    beats AS
    (
        SELECT host, device, accelerator, boot, board, sequence,
            toUnixTimestamp64Nano(read) AS read_ns, toInt64(wall_ns) AS wall, toInt64(idle_ns) AS idle,
            read_ns - wall AS begun_ns,
            lagInFrame(read_ns, 1, toInt64(-1)) OVER (PARTITION BY host, device, boot ORDER BY read_ns, sequence
                ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before_ns,
            toInt128(begun_ns) - lagInFrame(begun_ns, 1, begun_ns) OVER (PARTITION BY host, device, boot, board ORDER BY begun_ns
                ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) > 10000000000 AS is_other
        FROM {database:Identifier}.capacity_device_beats FINAL
        WHERE read < fromUnixTimestamp64Nano(4294967296000000000)
    ),
    boards AS
    (
        SELECT *, if(board = '', host, '') AS told_by,
            if(board = '', sum(is_other) OVER (PARTITION BY host, device, boot, board ORDER BY begun_ns
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW), 0) AS number
        FROM beats
    ),
    clocked AS
    (
        SELECT *,
            row_number() OVER b AS place,
            max(read_ns) OVER b AS end_ns,
            end_ns - wall AS ahead_ns,
            lagInFrame(wall, 1, toInt64(0)) OVER b AS last_wall,
            lagInFrame(idle, 1, toInt64(0)) OVER b AS last_idle
        FROM boards
        WINDOW b AS (PARTITION BY boot, device, board, told_by, number ORDER BY wall, sequence
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    ),
    placed AS
    (
        SELECT *,
            end_ns - max(ahead_ns) OVER (PARTITION BY boot, device, board, told_by, number ORDER BY wall, sequence
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS wall_placed,
            toInt64(last_idle + intDiv(toInt128(greatest(idle - last_idle, 0)) * greatest(wall_placed - last_wall, 0),
                greatest(wall - last_wall, 1))) AS idle_placed
        FROM clocked
    ),
    steps AS
    (
        SELECT host, device, accelerator, end_ns,
            lagInFrame(end_ns, 1, toInt64(0)) OVER p AS last_end_ns,
            lagInFrame(wall_placed, 1, toInt64(0)) OVER p AS last_wall_placed,
            lagInFrame(idle_placed, 1, toInt64(0)) OVER p AS last_idle_placed,
            multiIf(place > 1, wall_placed - last_wall_placed,
                before_ns < 0, 0, greatest(least(wall, end_ns - before_ns), 0)) AS wall_step,
            multiIf(place = 1 OR end_ns - last_end_ns > wall_step + 60000000000, end_ns - wall_step, last_end_ns) AS earliest_ns,
            greatest(earliest_ns, end_ns - 604800000000000) AS begin_ns,
            toInt128(end_ns - begin_ns) AS length,
            toInt128(least(wall_step, end_ns - begin_ns)) AS wall_part,
            least(if(place > 1, toInt128(greatest(idle_placed - last_idle_placed, 0)),
                intDiv(toInt128(idle) * wall_step, greatest(wall, 1))), wall_part) AS idle_part
        FROM placed
        WINDOW p AS (PARTITION BY boot, device, board, told_by, number ORDER BY wall, sequence
            ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
    ),
    parts AS
    (
        SELECT host, device, accelerator,
            arrayJoin(range(intDiv(begin_ns, 60000000000), intDiv(end_ns - 1, 60000000000) + 1)) AS minute_number,
            greatest(begin_ns, toInt128(minute_number) * 60000000000) AS from_ns,
            least(end_ns, (toInt128(minute_number) + 1) * 60000000000) AS to_ns,
            intDiv(wall_part * (from_ns - begin_ns), length) AS wall_from,
            intDiv(wall_part * (to_ns - begin_ns), length) AS wall_to,
            intDiv(idle_part * wall_to, wall_part) - intDiv(idle_part * wall_from, wall_part) AS idle,
            wall_to - wall_from AS wall
        FROM steps
        WHERE length > 0 AND wall_part > 0
    ),
    covered AS
    (
        SELECT minute_number, host, device, accelerator, wall, idle, from_ns, to_ns,
            greatest(to_ns - greatest(from_ns, max(to_ns) OVER (PARTITION BY host, device, minute_number ORDER BY from_ns, to_ns
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)), 0) AS new_ns
        FROM parts
    )
SELECT
    toDateTime(minute_number * 60, 'UTC') AS minute,
    host, device, accelerator,
    toInt64(sum(intDiv(wall * new_ns, to_ns - from_ns))) AS wall_ns,
    wall_ns - busy_ns AS idle_ns,
    least(wall_ns, toInt64(sum(wall - idle))) AS busy_ns
FROM covered
GROUP BY minute, host, device, accelerator;
