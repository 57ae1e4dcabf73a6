-- The fields of a timer in their order, to be included after `select`. Exact: extract() gives a
-- numeric, not a double.
    id::text,
    pod_id,
    post_id,
    member_id,
    engagement_type,
    attempt,
    (extract(epoch from scheduled_for) * 1000)::bigint
