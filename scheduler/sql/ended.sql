-- All activities of pod $1, in no order; only of those in one of the statuses $2 (final ones) is
-- there anything but nulls. To be read in pages: a row for each that is passed over bounds the work
-- of a page, however many there are.
--   $3, $4: age in days from which an executed activity, or another one, is `aged`
-- `ended_us`: when it came to its end, in microseconds. An executor's clock may be wrong, but the
-- end was never after it was recorded. `version` as in rows.sql. `post_id`, `member_id` and
-- `engagement_type` are null for what came from an event, which has the id that follows from them.
select done.*
from pod_activities as activity
left join lateral (
    select
        activity.id::text as id,
        activity.status,
        (extract(epoch from finish.at) * 1000000)::bigint as ended_us,
        finish.at < now() - case activity.status
            when 'executed' then $3::double precision
            else $4::double precision
        end * interval '1 day' as aged,
        activity.xmin::text::bigint as version,
        activity.source_partition,
        activity.result_offset,
        activity.command_offset,
        case when activity.source_offset is null then activity.post_id end as post_id,
        case when activity.source_offset is null then activity.member_id end as member_id,
        case when activity.source_offset is null then activity.engagement_type end
            as engagement_type
    from (
        select case activity.status
            when 'executed' then least(activity.executed_at, activity.updated_at)
            else activity.updated_at
        end as at
    ) as finish
    where activity.status = any($2::text[])
) as done on true
where activity.pod_id = $1
