-- What commands have changed of activity $1 (uuid), in order.
select
    change.partition, change.command_offset, change.was, change.became, change.was_scheduled_for,
    change.scheduled_for, change.changed_at, command.command, command.actor, command.reason,
    command.event_id
from activity_changes as change
left join commands as command using (partition, command_offset)
where change.activity_id = $1
order by change.changed_at, change.command_offset
