-- That a member was forgotten is on record, without the member.

create table erasures (
    name       text        collate "C" not null,
    actor      text,
    reason     text,
    activities bigint      not null,
    erased_at  timestamptz not null default now(),

    constraint erasures_pkey primary key (name)
);

comment on table erasures is
    'Members that were forgotten: who asked for it, when and why. Says nothing of who they were.';
comment on column erasures.name is 'What stands in the place of their ids since: a name of chance.';
comment on column erasures.actor is 'Who asked for it.';
comment on column erasures.reason is 'Why, in their words.';
comment on column erasures.activities is 'How many of their activities are nobody''s now.';
comment on column erasures.erased_at is 'When it was done.';

-- Drains are commands like all others now: what is about a process is applied by the first shard.
update controls set partition = 0 where partition = -1;
comment on column controls.partition is 'The shard; the first one where it is about a process.';
comment on column commands.scope is 'What it was about: activities, post, member, pod, dispatcher or all.';
comment on column commands.subject is 'Id of the post, member, pod or dispatcher.';
