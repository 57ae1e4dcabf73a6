-- What the posts $1 (text[]) already have: up to two rows a post, none for a post without activities.
-- The first is of its rows. `like_times_ms` are those that count for the cap. Rows that did not come
-- from an event were inserted by an upstream system under ids of its own choice: `own_*` (parallel
-- arrays) say what they are, so that the caller can derive the ids under which the planner knows
-- them. The second is of what retention has removed (prune.sql).
-- Served by the natural key, in which post_id stands first, and by the key of pruned_posts.
select
    post_id,
    array_agg(id::text) as ids,
--@include like_times.sql
    as like_times_ms,
    array_agg(pod_id) filter (where source_offset is null) as own_pods,
    array_agg(member_id) filter (where source_offset is null) as own_members,
    array_agg(engagement_type) filter (where source_offset is null) as own_types
from pod_activities
where post_id = any($1::text[])
group by post_id
union all
select post_id, activity_ids::text[], like_times_ms, null, null, null
from pruned_posts
where post_id = any($1::text[])
