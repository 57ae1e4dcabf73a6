-- The record: activities, member counts, and how far each input has been applied.
-- Needs PostgreSQL 14 or newer (exact extract(), functions with a bound body).

create table pod_activities (
    id               uuid        not null default gen_random_uuid(),
    -- Ids are opaque: bytes are compared. It is cheaper than a language's order, and no upgrade of
    -- the operating system's locales can invalidate the indexes.
    pod_id           text        collate "C" not null,
    post_id          text        collate "C" not null,
    member_id        text        collate "C" not null,
    engagement_type  text        collate "C" not null,
    status           text        collate "C" not null default 'pending',
    scheduled_for    timestamptz,
    dispatched_at    timestamptz,
    executed_at      timestamptz,
    attempt          smallint    not null default 1,
    last_error       text,
    source_partition integer,
    source_offset    bigint,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now(),

    constraint pod_activities_pkey primary key (id),
    constraint pod_activities_engagement_type_check check (engagement_type in ('like', 'comment')),
    constraint pod_activities_status_check check (
        status in ('pending', 'scheduled', 'dispatched', 'executed', 'failed', 'retrying',
                   'cancelled', 'expired')
    ),
    constraint pod_activities_attempt_check check (attempt between 1 and 255),
    constraint pod_activities_source_check check (
        (source_partition is null) = (source_offset is null)
    ),
    -- post_id stands first, so that this index also finds all activities of a post.
    constraint pod_activities_natural_key unique (post_id, member_id, engagement_type, pod_id)
) with (
    -- A row changes its status two or three times. With room on its page, and no index on anything
    -- that changes, each change is a heap-only update: it touches no index and leaves nothing for
    -- vacuum that the page cannot clean up by itself.
    fillfactor = 85,
    -- By default vacuum waits for a fifth of the table; of a hundred million rows that is too much
    -- at once. Inserts count as well, since a rebuild reads through the visibility map.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02
);

-- No index may ever name status, attempt or one of the times but created_at, neither as a column
-- nor in its predicate: every change of status would then have to touch all indexes.
create index pod_activities_pod on pod_activities (pod_id);
create index pod_activities_source on pod_activities (source_partition, source_offset);

comment on table pod_activities is
    'One row for each activity: a like or comment by one member on one post.';
comment on column pod_activities.id is
    'UUIDv5 of (pod, post, member, type) for planned activities; whatever an upstream system chose for its own rows.';
comment on column pod_activities.pod_id is 'The pod on whose behalf the member engages.';
comment on column pod_activities.post_id is 'The post; also the key of its events in Kafka.';
comment on column pod_activities.member_id is 'The member who likes or comments.';
comment on column pod_activities.engagement_type is 'like or comment.';
comment on column pod_activities.status is
    'pending (not planned yet), scheduled or retrying (in the timer wheel), dispatched (sent to the executors), executed, failed, cancelled or expired. Never goes back within one attempt.';
comment on column pod_activities.scheduled_for is
    'When the current attempt falls due, to the millisecond; null while pending.';
comment on column pod_activities.dispatched_at is 'When the current attempt was sent to the executors.';
comment on column pod_activities.executed_at is 'When the executor did it, as the executor says.';
comment on column pod_activities.attempt is 'The current attempt, from 1.';
comment on column pod_activities.last_error is 'Why the last attempt failed, as the executor says.';
comment on column pod_activities.source_partition is
    'Kafka partition of the event that planned it: its shard. Null for rows that an upstream system inserted.';
comment on column pod_activities.source_offset is 'Offset of that event in its partition; null likewise.';
comment on column pod_activities.created_at is 'When the row was inserted.';
comment on column pod_activities.updated_at is 'When the row was last changed.';

create table member_engagement (
    member_id        text        collate "C" not null,
    engagement_count bigint      not null default 0,
    updated_at       timestamptz not null default now(),

    constraint member_engagement_pkey primary key (member_id)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

comment on table member_engagement is 'How many engagements each member has carried out.';
comment on column member_engagement.member_id is 'The member.';
comment on column member_engagement.engagement_count is 'Engagements carried out, over all pods.';
comment on column member_engagement.updated_at is 'When it was last counted.';

-- The body is bound when the function is made, so that no search_path can lead it astray.
create function increment_member_engagement(member_id text, count integer default 1)
returns bigint
language sql
begin atomic
    insert into member_engagement as m (member_id, engagement_count)
    values ($1, $2)
    on conflict on constraint member_engagement_pkey
        do update set engagement_count = m.engagement_count + excluded.engagement_count,
                      updated_at = now()
    returning m.engagement_count;
end;

comment on function increment_member_engagement(text, integer) is
    'Adds count to the member''s engagements and returns the new number; makes the row where there is none.';

create table ingested_offsets (
    topic       text        collate "C" not null,
    partition   integer     not null,
    last_offset bigint      not null default -1,
    updated_at  timestamptz not null default now(),

    constraint ingested_offsets_pkey primary key (topic, partition)
) with (
    -- A handful of rows, each changed many times a second: all updates stay on their page.
    fillfactor = 20,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000
);

comment on table ingested_offsets is
    'How far each partition of each input topic has been applied. Changed only together with what was applied, in one statement, and only from the value that the writer expected.';
comment on column ingested_offsets.topic is 'Full name of the topic on the cluster, prefix included.';
comment on column ingested_offsets.partition is 'Partition of the topic.';
comment on column ingested_offsets.last_offset is 'Offset of the last record applied; -1 before the first.';
comment on column ingested_offsets.updated_at is 'When it last moved.';
