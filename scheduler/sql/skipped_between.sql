-- Rows of partition $1 from source offsets in ($2, $3] that were not scheduled, but are `cancelled` since
-- they were planned, and that nothing has changed since.
select
--@include row_columns.sql
    ,
    last_error
from pod_activities
where source_partition = $1
    and source_offset > $2
    and source_offset <= $3
    and status = 'cancelled'
    and result_offset is null
    and command_offset is null
order by source_offset, scheduled_for
