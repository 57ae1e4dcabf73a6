-- What becomes of an engagement: results, retries, commands, retention, replays.

-- Why an activity is where it is, beside its status. No index may ever name one of these.
alter table pod_activities
    add column result_offset bigint,
    add column command_offset bigint,
    add column failures jsonb;

comment on column pod_activities.result_offset is
    'Offset in engagement-executed, partition source_partition, of the result that changed the row last; null where something else did.';
comment on column pod_activities.command_offset is
    'Offset in pod-commands, partition source_partition, of the command that changed the row last; null where something else did.';
comment on column pod_activities.failures is
    'The attempts that failed, oldest first: [{"attempt": 1, "at": "...", "error": "..."}]; null where none has.';

-- A row of an upstream system belongs to a shard from its planning on, but came from no event.
alter table pod_activities drop constraint pod_activities_source_check;
alter table pod_activities add constraint pod_activities_source_check check (
    source_offset is null or source_partition is not null
);
comment on column pod_activities.source_partition is
    'The shard: partition of the event that planned it. Null for rows of an upstream system that nothing has been done with.';
comment on column pod_activities.source_offset is
    'Offset of that event in its partition; null for rows of an upstream system.';

-- Times that make sense to the engine. An upstream system may know no time yet, but not 'infinity'.
alter table pod_activities add constraint pod_activities_scheduled_for_check check (
    scheduled_for >= timestamptz '1970-01-01 00:00Z' and scheduled_for < timestamptz '9999-01-01 00:00Z'
);

-- What an upstream system has inserted and nobody has planned yet. source_partition stands in an
-- index already, so that this one makes no change of status dearer.
create index pod_activities_unplanned on pod_activities (pod_id, id) where source_partition is null;

create table pruned_posts (
    post_id       text        collate "C" not null,
    activity_ids  uuid[]      not null,
    like_times_ms bigint[]    not null default '{}',
    pruned_at     timestamptz not null default now(),

    constraint pruned_posts_pkey primary key (post_id)
);

comment on table pruned_posts is
    'What retention has removed from pod_activities: an event that comes once more must not plan it anew.';
comment on column pruned_posts.post_id is 'The post.';
comment on column pruned_posts.activity_ids is
    'Ids of the removed activities, as the planner would derive them.';
comment on column pruned_posts.like_times_ms is
    'Planned times (ms since 1970) of the removed likes that may still count for the cap.';
comment on column pruned_posts.pruned_at is 'When the last of them was removed.';

create table dead_letter_replays (
    dead_letter_id text        collate "C" not null,
    replayed_at    timestamptz not null default now(),
    topic          text        collate "C" not null,
    partition      integer     not null,
    last_offset    bigint      not null,
    replays        integer     not null default 1,

    constraint dead_letter_replays_pkey primary key (dead_letter_id)
);

comment on table dead_letter_replays is 'Dead letters that were sent through the normal door again.';
comment on column dead_letter_replays.dead_letter_id is
    'ce_id of the dead letter: topic/partition/offset of the original.';
comment on column dead_letter_replays.replayed_at is 'When, the last time.';
comment on column dead_letter_replays.topic is 'Where it was sent.';
comment on column dead_letter_replays.partition is 'Partition of it.';
comment on column dead_letter_replays.last_offset is 'Offset it got there, the last time.';
comment on column dead_letter_replays.replays is 'How often.';
