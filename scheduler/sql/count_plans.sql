-- One more plan for each of the `members` of capped_members.sql, if the watermark has `moved`.
    counted_plans as (
        update member_plans as member
        set plans = member.plans + 1
        where member_id = any(array(select member_id from known)) and exists (select from moved)
    )
