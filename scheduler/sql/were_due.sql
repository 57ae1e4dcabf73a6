-- When those of the activities $3 (text: ids joined by commas) that the command at offset $2 of partition
-- $1 has changed were due before.
select
    activity_id::text as id, (extract(epoch from was_scheduled_for) * 1000)::bigint as due_ms
from activity_changes
where partition = $1 and command_offset = $2
    and activity_id = any(string_to_array($3, ',')::uuid[])
    and was_scheduled_for is not null
