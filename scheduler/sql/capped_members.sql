-- `permitted` of apply_plan.sql: not where somebody else has planned for a member with a daily cap
-- since. Locked in one order by all, so that none waits for another in turn.
    members as materialized (
        select member_id, plans
        from member_plans
        where member_id = any($14::text[])
        order by member_id
        for update
    ),
    permitted as (
        select
            not exists (
                select
                from unnest($14::text[], $15::bigint[]) as known (member_id, plans)
                left join members using (member_id)
                where members.plans is distinct from known.plans
            ) as yes,
            $13::bigint as decided_by,
            null::text as wheel_gen
    )
