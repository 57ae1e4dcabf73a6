-- Of each partition: rows in one of the statuses $1 (text[]) that wait, and rows that are dispatched.
-- One pass over the table, in parallel where it is large: an index on status would make each change
-- of status dearer, always, and this runs once a minute. A million rows take about 0.3 s.
select
    source_partition as shard,
    count(*) filter (where status = any($1)) as waiting,
    count(*) filter (where status = 'dispatched') as dispatched
from pod_activities
where source_partition is not null
    and (status = any($1) or status = 'dispatched')
group by source_partition
