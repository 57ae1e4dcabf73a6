-- All rows of partition $1 that are in one of the statuses $2 (text[]): what its wheel must know of.
-- Reads every row of the shard, like unfired.sql, and for the same reason.
select
--@include standing_columns.sql
from pod_activities
where source_partition = $1
    and status = any($2)
