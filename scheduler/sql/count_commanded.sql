-- How many rows commanded.sql has of partition $1 for the command at offset $2.
select count(*) as activities
from pod_activities
where id in (select activity_id from activity_changes where partition = $1 and command_offset = $2)
    and command_offset = $2
