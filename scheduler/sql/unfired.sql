-- All timers of partition $1 that are in one of the statuses $2, for a rebuild.
-- Reads every row of the shard that is still kept: an index on status would make each change of
-- status dearer, always, and a rebuild is rare.
select
--@include timer_columns.sql
from pod_activities
where source_partition = $1
    and status = any($2::text[])
    and scheduled_for is not null
