-- All activities of the pods $1.
select id::text as id
from pod_activities
where pod_id = any ($1)
