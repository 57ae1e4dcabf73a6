-- All rows of partition $1 that the command at offset $2 was the last to change.
-- Reads every row of the shard, like unfired.sql, and for the same reason.
select
--@include row_columns.sql
from pod_activities
where source_partition = $1
    and command_offset = $2
