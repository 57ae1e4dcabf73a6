-- Who has sent dead letters through the normal door again, for the audit.

alter table dead_letter_replays
    add column actor text,
    add column reason text;

comment on column dead_letter_replays.actor is 'Who asked for it, the last time.';
comment on column dead_letter_replays.reason is 'Why, in their words.';
