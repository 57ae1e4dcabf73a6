-- From now on topic $1, partition $2 has the wheel of generation $3; nothing changes where it has not that
-- of generation $4 (text; null: any). Waits for a statement that is about to move the watermark.
insert into ingested_offsets as o (topic, partition, wheel_gen)
values ($1, $2, $3)
on conflict (topic, partition)
    do update set wheel_gen = excluded.wheel_gen
    where $4::text is null or o.wheel_gen = $4
