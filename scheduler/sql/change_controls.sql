-- The part of change.sql that commands alone have: what they changed of activities, what lasts of
-- them, and that they were applied.
    audited as (
        insert into activity_changes (
            partition, command_offset, activity_id, was, became, was_scheduled_for, scheduled_for
        )
        select
            $2, changed.cause, changed.id, locked.status, changed.status, locked.scheduled_for,
            changed.scheduled_for
        from changed join locked using (id)
        where not $15
        -- A row that one command changes in two steps.
        on conflict (partition, command_offset, activity_id)
            do update set became = excluded.became, scheduled_for = excluded.scheduled_for
    ),
    controlled as (
        insert into controls (
            partition, kind, scope, subject, active, command_offset, actor, reason, value, issued_at
        )
        select
            $2, kind, scope, subject, active, command_offset, actor, reason, value,
            timestamptz 'epoch' + issued_ms * interval '1 millisecond'
        from jsonb_to_recordset($17::text::jsonb) as control (
            kind text, scope text, subject text, active boolean, command_offset bigint, actor text,
            reason text, value jsonb, issued_ms bigint
        )
        where exists (select from moved)
        on conflict (partition, kind, scope, subject) do update set
            active = excluded.active,
            command_offset = excluded.command_offset,
            actor = excluded.actor,
            reason = excluded.reason,
            value = excluded.value,
            issued_at = excluded.issued_at,
            updated_at = now()
    ),
    -- From the first cap on; it does no harm afterwards.
    capped as (
        insert into member_plans (member_id)
        select subject
        from jsonb_to_recordset($17::text::jsonb) as control (
            kind text, subject text, active boolean
        )
        where kind = 'daily_cap' and active and exists (select from moved)
        on conflict (member_id) do nothing
    ),
    applied as (
        insert into commands (
            partition, command_offset, event_id, command, actor, reason, scope, subject, value,
            issued_at, outcome
        )
        select
            $2, command_offset, event_id, command, actor, reason, scope, subject, value,
            timestamptz 'epoch' + issued_ms * interval '1 millisecond', outcome
        from jsonb_to_recordset($18::text::jsonb) as command (
            command_offset bigint, event_id text, command text, actor text, reason text, scope text,
            subject text, value jsonb, issued_ms bigint, outcome jsonb
        )
        where exists (select from moved)
        on conflict (partition, command_offset) do nothing
    ),
    bound as (
        insert into ingested_offsets as o (topic, partition, controls)
        select topic, $2, $20
        from unnest($19::text[]) as other (topic)
        where exists (select from moved)
        order by topic
        on conflict (topic, partition)
            do update set controls = excluded.controls where o.controls < excluded.controls
    )
