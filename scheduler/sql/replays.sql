-- Which of the dead letters $1 were replayed: when, where to, how often.
select
    dead_letter_id,
    (extract(epoch from replayed_at) * 1000)::bigint as replayed_at_ms,
    topic,
    partition,
    last_offset,
    replays
from dead_letter_replays
where dead_letter_id = any ($1::text[])
