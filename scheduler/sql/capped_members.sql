-- Whether nobody else has planned since for the members with a daily cap in `known` (member_id text, plans
-- bigint: how many plans it is decided on top of), which the statement has before: `undisturbed`, one row
-- (`yes`, a boolean). Locked in one order by all, so that none waits for another in turn.
    members as materialized (
        select member_id, plans
        from member_plans
        -- As an array, so that it is looked up in the index however many there are.
        where member_id = any(array(select member_id from known))
        order by member_id
        for update
    ),
    undisturbed as (
        select not exists (
            select from known left join members using (member_id)
            -- None where the member was forgotten while a cap was set.
        where coalesce(members.plans, 0) <> known.plans
        ) as yes
    )
