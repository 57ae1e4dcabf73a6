-- Timers of partition $1 from source offsets in ($2, $3] whose rows are in status $4, that is at their
-- first attempt: later ones are the matter of the result that asked for them.
select
--@include timer_columns.sql
from pod_activities
where source_partition = $1
    and source_offset > $2
    and source_offset <= $3
    and status = $4
    and scheduled_for is not null
order by source_offset, scheduled_for
