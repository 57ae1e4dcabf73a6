-- What apply_plan.sql and apply_plan_around.sql are decided by, and the swap.
    known as (
        select * from unnest($14::text[], $15::bigint[]) as known (member_id, plans)
    ),
--@include capped_members.sql
    ,
    permitted as (
        select yes, $13::bigint as decided_by, null::text as wheel_gen from undisturbed
    ),
--@include move_watermark.sql
    ,
--@include count_plans.sql
