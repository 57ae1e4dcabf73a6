-- How many activities the commands at offsets $2 (bigint[]) of partitions $1 (int[], parallel) have
-- cancelled. Reads all rows of those partitions: for people, not for loops.
select count(*) as activities
from pod_activities as activity
join unnest($1::integer[], $2::bigint[]) as command (partition, at_offset)
    on activity.source_partition = command.partition
    and activity.command_offset = command.at_offset
where activity.status = 'cancelled'
