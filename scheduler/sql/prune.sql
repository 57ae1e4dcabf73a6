-- Remove activities that are still as they were read, and note what they were, in one statement.
--   columns: $1 ids joined by commas, $2 versions bigint[] (ended.sql), $3 joined by commas: the id
--   that the planner would give it, empty where that is its id; $4 text[]: the final statuses
-- One row for each status of what was removed: `status`, `removed`.
-- Waits for nobody who changes activities, and lets nobody wait for longer than it takes: what is
-- locked is passed over, and what is noted is locked in the order of posts, by all who prune.
with
    doomed as materialized (
        select activity.id, nullif(wanted.derived, '')::uuid as derived
        from unnest(
            string_to_array($1, ',')::uuid[], $2::bigint[], string_to_array($3, ',')
        ) as wanted (id, version, derived)
        join pod_activities as activity on activity.id = wanted.id
        where activity.status = any($4::text[])
            and activity.xmin::text::bigint = wanted.version
        for update of activity skip locked
    ),
    removed as (
        delete from pod_activities as activity
        using doomed
        where activity.id = doomed.id
        returning
            activity.id, doomed.derived, activity.post_id, activity.engagement_type,
            activity.status, activity.scheduled_for, activity.dispatched_at, activity.failures,
            activity.command_offset, activity.result_offset, activity.updated_at
    ),
    -- What commands have changed of them goes with them.
    changes as (
        delete from activity_changes as change using removed where change.activity_id = removed.id
    ),
    noted as (
        insert into pruned_posts as post (post_id, activity_ids, like_times_ms)
        select
            post_id,
            array_agg(id) || array_agg(derived) filter (where derived is not null),
            coalesce(
--@include like_times.sql
                ,
                '{}'
            )
        from removed
        group by post_id
        order by post_id
        on conflict (post_id) do update set
            activity_ids = array(
                select unnest(post.activity_ids) union select unnest(excluded.activity_ids)
            ),
            like_times_ms = post.like_times_ms || excluded.like_times_ms,
            pruned_at = now()
    )
select status, count(*) as removed
from removed
group by status
