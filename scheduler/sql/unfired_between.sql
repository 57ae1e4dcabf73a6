-- Timers of partition $1 from source offsets in ($2, $3] that are in one of the statuses $4, and
-- that nothing has changed since they were planned: what a result or a command has put into the
-- wheel may have been fired from there by now.
select
--@include timer_columns.sql
from pod_activities
where source_partition = $1
    and source_offset > $2
    and source_offset <= $3
    and status = any($4::text[])
    and scheduled_for is not null
    and result_offset is null
    and command_offset is null
order by source_offset, scheduled_for
