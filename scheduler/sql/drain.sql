-- Have the dispatcher with instance id $1 (text) give up its shards, or ($2 boolean: false) take part
-- again. $3 actor, $4 reason. It concerns a process and no shard: partition -1 stands for that.
insert into controls (
    partition, kind, scope, subject, active, command_offset, actor, reason, issued_at
)
values (-1, 'drained', 'dispatcher', $1, $2, -1, $3, $4, now())
on conflict (partition, kind, scope, subject) do update set
    active = excluded.active,
    actor = excluded.actor,
    reason = excluded.reason,
    issued_at = excluded.issued_at,
    updated_at = now()
