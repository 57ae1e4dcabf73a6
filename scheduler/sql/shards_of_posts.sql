-- The shard of each of the posts $1 (text[]) that has one; served by the natural key.
select post_id, min(source_partition) as shard
from pod_activities
where post_id = any($1::text[])
    and source_partition is not null
group by post_id
