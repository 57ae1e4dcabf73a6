-- What came of the commands at offsets $2 (bigint[]) of partitions $1 (integer[], parallel).
select command.outcome::text as outcome
from commands as command
join unnest($1::integer[], $2::bigint[]) as asked (partition, at_offset)
    on command.partition = asked.partition and command.command_offset = asked.at_offset
