-- Ids of the activities of partition $1 in one of the statuses $2 (text[]).
select id::text, status
from pod_activities
where source_partition = $1
    and status = any($2::text[])
