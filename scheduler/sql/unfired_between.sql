-- Timers of partition $1 from source offsets in ($2, $3] that are in one of the statuses $4.
select
--@include timer_columns.sql
from pod_activities
where source_partition = $1
    and source_offset > $2
    and source_offset <= $3
    and status = any($4::text[])
    and scheduled_for is not null
order by source_offset, scheduled_for
