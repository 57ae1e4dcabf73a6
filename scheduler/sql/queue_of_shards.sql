-- What the wheels of partitions $1 (int[]) will hold once they are rebuilt: `waiting` is due now,
-- `delayed` later, `active` are attempts whose result is awaited. Reads all rows of the partitions.
select
    count(*) filter (where status = any($2::text[]) and scheduled_for <= now()) as waiting,
    count(*) filter (where status = any($2::text[]) and scheduled_for > now()) as delayed,
    count(*) filter (where status = 'dispatched') as active
from pod_activities
where source_partition = any($1::integer[])
