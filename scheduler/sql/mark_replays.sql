-- Mark the dead letters $1 as replayed by $5, since $6: topic, partition, offset of each. No id may
-- come twice.
insert into dead_letter_replays as marked (
    dead_letter_id, topic, partition, last_offset, actor, reason
)
select letter.*, $5::text, $6::text
from unnest($1::text[], $2::text[], $3::integer[], $4::bigint[]) as letter
on conflict (dead_letter_id) do update set
    replayed_at = excluded.replayed_at,
    topic = excluded.topic,
    partition = excluded.partition,
    last_offset = excluded.last_offset,
    replays = marked.replays + 1,
    actor = excluded.actor,
    reason = excluded.reason
