-- All rows of partition $1 that the command at offset $2 was the last to change. Served by the keys of
-- both: what it has changed, it has noted.
select
--@include row_columns.sql
from pod_activities
where id in (select activity_id from activity_changes where partition = $1 and command_offset = $2)
    and command_offset = $2
