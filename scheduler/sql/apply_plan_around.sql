-- As apply_plan.sql, but around the activities that are there already, by id or by natural key.
-- Those stay as they are. One row: `moved`; `there`, their ids out of $5.
with
--@include planned_upon.sql
    ,
    inserted as (
        insert into pod_activities (
            id, pod_id, post_id, member_id, engagement_type, status, last_error, scheduled_for,
            source_partition, source_offset
        )
--@include planned_rows.sql
        on conflict do nothing
        returning id
    )
select
    exists (select from moved) as moved,
    array(
        select unnest(string_to_array($5, E'\x1f')) except select id::text from inserted
    ) as there
