-- The last $3 commands, as they were asked for: one that went to several partitions is one. $1 is from
-- when on they were applied (null: any), $2 whether those of dispatchers count.
select
    regexp_replace(event_id, ':[0-9]+$', '') as command_id, command, actor, reason, scope, subject,
    min(issued_at) as issued_at, max(applied_at) as applied_at, count(*) as shards,
    jsonb_agg(outcome)::text as outcomes, min(value::text) as value,
    array_agg(partition order by partition) as partitions,
    array_agg(command_offset order by partition) as offsets
from commands
where ($1::timestamptz is null or applied_at >= $1)
    and ($2 or actor is distinct from 'dispatcher')
group by command_id, command, actor, reason, scope, subject
order by max(applied_at) desc
limit $3
