-- The rows of new activities, to be included after an `insert into pod_activities (...)`: none at
-- all unless the watermark has `moved`. Parameters as in apply_plan.sql.
        select
            planned.id, planned.pod_id, planned.post_id, planned.member_id,
            planned.engagement_type,
            case when planned.skipped is null then 'scheduled' else 'cancelled' end,
            planned.skipped,
            -- Exact: microseconds are whole numbers in a double up to the year 2255.
            timestamptz 'epoch' + planned.due_ms * interval '1 millisecond',
            $2, planned.source_offset
        from unnest(
            string_to_array($5, E'\x1f')::uuid[],
            string_to_array($6, E'\x1f'),
            string_to_array($7, E'\x1f'),
            string_to_array($8, E'\x1f'),
            string_to_array($9, E'\x1f'),
            $10::bigint[],
            $11::bigint[],
            $12::text[]
        ) as planned (
            id, pod_id, post_id, member_id, engagement_type, due_ms, source_offset, skipped
        )
        where exists (select from moved)
