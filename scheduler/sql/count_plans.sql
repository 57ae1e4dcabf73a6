-- One more plan for each of the `members` of capped_members.sql, if the watermark has `moved`.
    counted_plans as (
        insert into member_plans as member (member_id, plans)
        select member_id, 1 from known where exists (select from moved)
        on conflict (member_id) do update set plans = member.plans + 1
    )
