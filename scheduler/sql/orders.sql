-- What those who apply topic $1 to partition $2 must know of the members $3 and the pods $4
-- (text[]). One row: `version`, the offset of the last command that they must know of, -1 without
-- any; `controls`, a JSON array of those that hold, null without any; `plans`, a JSON object: of
-- members who have or had a daily cap, how many plans there were.
select
    coalesce(
        (select controls from ingested_offsets where topic = $1 and partition = $2), -1
    ) as version,
    (
        select jsonb_agg(jsonb_build_array(kind, scope, subject, value))::text
        from controls
        where partition = $2
            and kind in ('opted_out', 'quiet_hours', 'policy', 'daily_cap')
            and active
            and (
                scope = 'member' and subject = any($3::text[])
                or scope = 'pod' and subject = any($4::text[])
            )
    ) as controls,
    (
        select jsonb_object_agg(member_id, plans)::text
        from member_plans
        where member_id = any($3::text[])
    ) as plans
