-- The fields of an activity in a list, to be included after `select`.
    id::text as activity_id, pod_id, post_id, member_id, engagement_type, status, attempt,
    scheduled_for, dispatched_at, executed_at, last_error
