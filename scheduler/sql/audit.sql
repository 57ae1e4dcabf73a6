-- The last $3 commands, as they were asked for: one that went to several partitions is one; the last
-- replay of each dead letter; and the members that were forgotten. $1 is from when on they were applied
-- (null: any), $2 whether those of dispatchers count.
with asked as (
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
),

replayed as (
    select
        'replay:' || dead_letter_id as command_id, 'replay' as command, actor, reason,
        'dead_letter' as scope, dead_letter_id as subject, replayed_at as issued_at,
        replayed_at as applied_at, 1::bigint as shards,
        jsonb_build_array(jsonb_build_object('replayed', replays))::text as outcomes,
        null::text as value, array[partition] as partitions, array[last_offset] as offsets
    from dead_letter_replays
    where $1::timestamptz is null or replayed_at >= $1
    order by replayed_at desc
    limit $3
),

erased as (
    select
        'forget:' || name as command_id, 'forget_member' as command, actor, reason,
        'member' as scope, name as subject, erased_at as issued_at, erased_at as applied_at,
        1::bigint as shards,
        jsonb_build_array(jsonb_build_object('erased', activities))::text as outcomes,
        null::text as value, '{}'::integer[] as partitions, '{}'::bigint[] as offsets
    from erasures
    where $1::timestamptz is null or erased_at >= $1
    order by erased_at desc
    limit $3
)

select * from asked
union all
select * from replayed
union all
select * from erased
order by applied_at desc
limit $3
