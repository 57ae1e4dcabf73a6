-- Which of the activities $3 (text: ids joined by commas) the commands at offsets $2 (bigint[]) of
-- partitions $1 (integer[], parallel) have changed, and what they have become by that.
select change.activity_id::text as id, change.became
from activity_changes as change
join unnest($1::integer[], $2::bigint[]) as asked (partition, at_offset)
    on change.partition = asked.partition and change.command_offset = asked.at_offset
where change.activity_id = any(string_to_array($3, ',')::uuid[])
