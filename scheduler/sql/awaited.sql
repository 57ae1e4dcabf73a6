-- All attempts of partition $1 whose result is awaited, that is rows in status $2, for a rebuild: as
-- timers, but with the time they were dispatched in place of the time they were due.
-- Reads every row of the shard, like unfired.sql, and for the same reason.
select
    id::text,
    pod_id,
    post_id,
    member_id,
    engagement_type,
    attempt,
    (extract(epoch from dispatched_at) * 1000)::bigint
from pod_activities
where source_partition = $1
    and status = $2
    and dispatched_at is not null
