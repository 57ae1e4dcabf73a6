-- All that the rows of activities $1 (text: ids joined by commas) tell of their lives.
select
    id::text, pod_id, post_id, member_id, engagement_type, status, attempt, scheduled_for,
    dispatched_at, executed_at, last_error, source_partition, source_offset, result_offset,
    coalesce(failures::text, '') as failures, created_at, updated_at
from pod_activities
where id = any(string_to_array($1, ',')::uuid[])
