-- What operators ask for, and what came of it.

create table controls (
    partition      integer     not null,
    kind           text        collate "C" not null,
    scope          text        collate "C" not null,
    subject        text        collate "C" not null default '',
    active         boolean     not null,
    command_offset bigint      not null,
    actor          text,
    reason         text,
    value          jsonb,
    issued_at      timestamptz not null,
    updated_at     timestamptz not null default now(),

    constraint controls_pkey primary key (partition, kind, scope, subject),
    constraint controls_kind_check check (
        kind in ('paused', 'opted_out', 'quiet_hours', 'policy', 'daily_cap', 'drained')
    ),
    constraint controls_scope_check check (scope in ('all', 'pod', 'member', 'dispatcher')),
    constraint controls_subject_check check ((subject = '') = (scope = 'all'))
);

comment on table controls is
    'What lasts of the commands: who is paused, who has opted out, when it is quiet, and policies of pods. Each shard has its own, as of its own pod-commands.';
comment on column controls.partition is 'The shard; -1 where it is about a process.';
comment on column controls.kind is 'paused, opted_out, quiet_hours, policy, daily_cap or drained.';
comment on column controls.scope is 'all, pod, member or dispatcher.';
comment on column controls.subject is 'Id of the pod, the member or the instance; empty for all.';
comment on column controls.active is 'Whether it holds; false once it was taken back.';
comment on column controls.command_offset is 'Offset in pod-commands of the command that said so last.';
comment on column controls.actor is 'Who asked for it.';
comment on column controls.reason is 'Why.';
comment on column controls.value is 'Of quiet hours and of a policy: what they are.';
comment on column controls.issued_at is 'When it was asked for.';
comment on column controls.updated_at is 'When it was applied.';

-- Inputs are planned and judged by what is known of controls; a writer that does not know the latest of
-- them is refused, by the same swap that keeps the watermark.
alter table ingested_offsets add column controls bigint not null default -1;
comment on column ingested_offsets.controls is
    'Offset in pod-commands of the last command that those who apply this topic must know of; -1 without any.';

create table commands (
    partition      integer     not null,
    command_offset bigint      not null,
    event_id       text        collate "C" not null,
    command        text        collate "C" not null,
    actor          text,
    reason         text,
    scope          text        collate "C" not null,
    subject        text        collate "C" not null default '',
    value          jsonb,
    issued_at      timestamptz not null,
    applied_at     timestamptz not null default now(),
    outcome        jsonb       not null default '{}',

    constraint commands_pkey primary key (partition, command_offset)
);
create index commands_event on commands (event_id);
create index commands_applied on commands (applied_at);

comment on table commands is
    'Every command that a shard has applied: who, why, and what came of it. One that concerns a pod, a member or everything is in every shard.';
comment on column commands.partition is 'The shard.';
comment on column commands.command_offset is 'Where it stands in pod-commands.';
comment on column commands.event_id is 'The same in every shard, but for what follows the last colon.';
comment on column commands.command is 'What was to be done.';
comment on column commands.actor is 'Who asked for it.';
comment on column commands.reason is 'Why.';
comment on column commands.scope is 'What it was about: activities, post, member, pod or all.';
comment on column commands.subject is 'Id of the post, member or pod.';
comment on column commands.value is 'Quiet hours, or of a policy what it is.';
comment on column commands.issued_at is 'When it was asked for.';
comment on column commands.applied_at is 'When this shard had applied it.';
comment on column commands.outcome is 'Numbers of activities, by what became of them.';

create table activity_changes (
    partition         integer     not null,
    command_offset    bigint      not null,
    activity_id       uuid        not null,
    was               text        collate "C" not null,
    became            text        collate "C" not null,
    was_scheduled_for timestamptz,
    scheduled_for     timestamptz,
    changed_at        timestamptz not null default now(),

    constraint activity_changes_pkey primary key (partition, command_offset, activity_id)
);
create index activity_changes_activity on activity_changes (activity_id);

comment on table activity_changes is
    'What commands have changed of activities. What became of one else, its row tells.';
comment on column activity_changes.partition is 'The shard.';
comment on column activity_changes.command_offset is 'The command (commands).';
comment on column activity_changes.activity_id is 'The activity.';
comment on column activity_changes.was is 'Its status before.';
comment on column activity_changes.became is 'Its status since.';
comment on column activity_changes.was_scheduled_for is 'When it was due before.';
comment on column activity_changes.scheduled_for is 'When it is due since.';
comment on column activity_changes.changed_at is 'When it was changed.';

create table member_plans (
    member_id text   collate "C" not null,
    plans     bigint not null default 0,

    constraint member_plans_pkey primary key (member_id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

comment on table member_plans is
    'Members with a daily cap. Shards plan for them one after the other: each says how many plans it knows of.';
comment on column member_plans.member_id is 'The member.';
comment on column member_plans.plans is 'Grows with each batch that plans for the member.';

-- Whatever concerns a member must cost what matches, not what is there.
create index pod_activities_member on pod_activities (member_id);
