-- From now on partition $2 has the wheel of generation $3, for each of the topics $1 (text[]). Waits for
-- statements that are about to move one of their watermarks.
insert into ingested_offsets as o (topic, partition, wheel_gen)
select topic, $2, $3
from unnest($1::text[]) as input (topic)
order by topic
on conflict (topic, partition) do update set wheel_gen = excluded.wheel_gen
