-- The fields of an activity as it is on the record, to be included after `select`. `version` is the
-- row's xmin: it differs after every change, by whomever.
    id::text,
    pod_id,
    post_id,
    member_id,
    engagement_type,
    status,
    attempt,
    (extract(epoch from scheduled_for) * 1000)::bigint as scheduled_for_ms,
    source_partition,
    result_offset,
    command_offset,
    coalesce(failures::text, '') as failures,
    xmin::text::bigint as version
