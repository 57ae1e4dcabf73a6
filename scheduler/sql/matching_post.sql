-- Ids of the activities of partition $1 in one of the statuses $2 (text[]) of post $3.
select id::text, status
from pod_activities
where source_partition = $1
    and status = any($2::text[])
    and post_id = $3
