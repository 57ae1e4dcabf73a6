-- Where an activity stands, to be included after `select`. `version` as in row_columns.sql.
    id::text,
    pod_id,
    post_id,
    member_id,
    engagement_type,
    status,
    attempt,
    (extract(epoch from scheduled_for) * 1000)::bigint as scheduled_for_ms,
    (extract(epoch from dispatched_at) * 1000)::bigint as dispatched_at_ms,
    source_partition,
    command_offset,
    (extract(epoch from created_at) * 1000)::bigint as created_at_ms,
    xmin::text::bigint as version
