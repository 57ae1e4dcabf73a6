-- Insert new activities, mostly as `scheduled`, and move the watermark, both or neither.
--   $1 topic text, $2 partition int, $3 expected bigint, $4 upto bigint,
--   columns: texts joined by unit separators: $5 ids, $6 pods, $7 posts, $8 members, $9 types;
--   bigint[]: $10 due (ms), $11 offsets; $12 text[]: reasons why they are `cancelled` at once (null:
--   none is; of those that are not: null); $13 bigint: the controls they were planned by (null: any)
--   $14 text[]: members with a daily cap among them (null: none), $15 bigint[]: of each, how many
--   plans it was planned on top of
-- Texts are joined since the driver spends four times as long on an array as on one long text. One
-- that holds a separator would make its column longer than the others, which is refused: unnest()
-- fills the others up with nulls.
-- One row: `moved`. Fails with a unique violation when any of them is there already; then
-- apply_plan_around.sql does what this one could not. Mostly none is, since the planner has looked,
-- and an insert that need not expect conflicts costs a quarter less.
with
--@include planned_upon.sql
    ,
    inserted as (
        insert into pod_activities (
            id, pod_id, post_id, member_id, engagement_type, status, last_error, scheduled_for,
            source_partition, source_offset
        )
--@include planned_rows.sql
    )
select exists (select from moved) as moved
