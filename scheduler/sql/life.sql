-- All that the row of activity $1 (uuid) tells of its life.
select
    id::text, pod_id, post_id, member_id, engagement_type, status, attempt, scheduled_for,
    dispatched_at, executed_at, last_error, source_partition, source_offset, result_offset,
    coalesce(failures::text, '') as failures, created_at, updated_at
from pod_activities
where id = $1
