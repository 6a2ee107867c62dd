-- A query through FINAL is fast where few parts overlap. ClickHouse itself merges the parts of a
-- month of windows into one when they are older than 6 hours; newer ones it merges as they come.
-- The setting costs one rewrite of the month's windows in 6 hours, and no process of this project.
ALTER TABLE {database:Identifier}.cost_window_rows
    MODIFY SETTING min_age_to_force_merge_seconds = 21600;
