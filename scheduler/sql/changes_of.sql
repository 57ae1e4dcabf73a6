-- What commands have changed of activities $1 (text: ids joined by commas), in order.
select
    change.activity_id::text, change.partition, change.command_offset, change.was, change.became,
    change.was_scheduled_for, change.scheduled_for, change.changed_at, command.command,
    command.actor, command.reason, command.event_id
from activity_changes as change
left join commands as command using (partition, command_offset)
where change.activity_id = any(string_to_array($1, ',')::uuid[])
order by change.changed_at, change.command_offset
