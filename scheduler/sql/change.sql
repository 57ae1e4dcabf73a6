-- Change rows that are still as they were read, and move the watermark: all of it, or nothing.
--   $1 topic text, $2 partition int, $3 expected bigint, $4 upto bigint,
--   columns, each id once: $5 ids joined by commas, $6 versions bigint[] (rows.sql),
--   $7 statuses text[], $8 attempts smallint[], $9 due (ms) bigint[], $10 causes bigint[],
--   $11 executed (ms) bigint[], $12 errors text[], $13 histories text[] (JSON), $14 counts boolean[]
--   (null in $9, $11, $12, $13: as it was), $15 boolean: the causes are results, not commands,
--   $16 bigint: the controls it was decided by (null: any),
--   JSON, or null: $17 controls that change, $18 commands that have been applied (change_controls.sql)
--   $19 text[]: topics whose inputs must be decided by these controls from now on; $20 by which command
--   $21 text: the wheel, by its generation, in which the rows' timers are aside (null: in none)
--   $22 text[]: members with a daily cap for whom it plans (null: none), $23 bigint[]: of each, how many
--   plans it was decided on top of
-- One row: `moved`; `topics` and `offsets`, parallel: the watermarks of the partition's other topics
-- as of this statement. A row that somebody changed before it began is either among what `$5` was
-- read from, or not as it was read: so these tell all that the changes can follow from.
with
    wanted as (
        select *
        from unnest(
            string_to_array($5, ',')::uuid[],
            $6::bigint[], $7::text[], $8::smallint[], $9::bigint[], $10::bigint[], $11::bigint[],
            $12::text[], $13::text[], $14::boolean[]
        ) as change (
            id, version, status, attempt, due_ms, cause, executed_ms, error, history, counts
        )
    ),
    -- Locked in one order by all who change several rows, so that none waits for another in turn.
    locked as materialized (
        select
            activity.id, activity.xmin::text::bigint as version, activity.status,
            activity.scheduled_for
        from pod_activities as activity
        where activity.id in (select id from wanted)
        order by activity.id
        for update
    ),
    known as (
        select * from unnest($22::text[], $23::bigint[]) as known (member_id, plans)
    ),
--@include capped_members.sql
    ,
    permitted as (
        select undisturbed.yes and not exists (
            select from wanted left join locked using (id)
            where locked.version is distinct from wanted.version
        ) as yes,
        $16::bigint as decided_by,
        $21::text as wheel_gen
        from undisturbed
    ),
--@include move_watermark.sql
    ,
--@include count_plans.sql
    ,
    changed as (
        update pod_activities as activity
        set status = wanted.status,
            attempt = wanted.attempt,
            scheduled_for = case
                when wanted.due_ms is null then activity.scheduled_for
                else timestamptz 'epoch' + wanted.due_ms * interval '1 millisecond'
            end,
            executed_at = case
                when wanted.executed_ms is null then activity.executed_at
                else timestamptz 'epoch' + wanted.executed_ms * interval '1 millisecond'
            end,
            last_error = coalesce(wanted.error, activity.last_error),
            failures = coalesce(wanted.history::jsonb, activity.failures),
            source_partition = coalesce(activity.source_partition, $2),
            result_offset = case when $15 then wanted.cause end,
            command_offset = case when not $15 then wanted.cause end,
            updated_at = now()
        from wanted
        where activity.id = wanted.id
            and exists (select from moved)
        returning
            activity.id, activity.member_id, activity.status, activity.scheduled_for,
            wanted.cause, wanted.counts
    ),
--@include change_controls.sql
    ,
    counted as (
        select increment_member_engagement(member.member_id, member.engagements)
        from (
            select member_id, count(*)::integer as engagements
            from changed
            where counts
            group by member_id
            order by member_id
        ) as member
    )
select
    exists (select from moved) as moved,
    -- Asked for, or it would not be run.
    (select count(*) from counted) as members,
    array(
        select topic from ingested_offsets where partition = $2 and topic <> $1 order by topic
    ) as topics,
    array(
        select last_offset from ingested_offsets where partition = $2 and topic <> $1 order by topic
    ) as offsets
