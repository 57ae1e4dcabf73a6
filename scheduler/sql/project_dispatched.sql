-- Mark activities as dispatched and move the watermark, both or neither.
--   $1 topic text, $2 partition int, $3 expected bigint, $4 upto bigint,
--   columns, each id once: $5 ids joined by commas, $6 attempts smallint[], $7 when (ms) bigint[]
--   $8 text[]: the statuses that `dispatched` may follow
-- One row: `moved`. An activity that is further on, by attempt or by status, stays as it is; only
-- where its result at this very attempt was quicker, it is told when it was dispatched. An unknown
-- id changes nothing. Ids in ascending order: rows are locked in the order they are given in.
with
    permitted as (select true as yes, null::bigint as decided_by, null::text as wheel_gen),
--@include move_watermark.sql
    ,
    dispatched as (
        update pod_activities as activity
        set status = case
                when activity.status = any($8::text[]) then 'dispatched' else activity.status
            end,
            dispatched_at = timestamptz 'epoch' + change.at_ms * interval '1 millisecond',
            attempt = change.attempt,
            updated_at = now()
        from unnest(
            string_to_array($5, ',')::uuid[], $6::smallint[], $7::bigint[]
        ) as change (id, attempt, at_ms)
        where activity.id = change.id
            and activity.status <> 'dispatched'
            and (
                activity.attempt <= change.attempt and activity.status = any($8::text[])
                or activity.attempt = change.attempt
                    and activity.dispatched_at is distinct from
                        timestamptz 'epoch' + change.at_ms * interval '1 millisecond'
            )
            and exists (select from moved)
    )
select exists (select from moved) as moved
