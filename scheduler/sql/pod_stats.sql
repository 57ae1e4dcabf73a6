-- Activities of pod $1 by status; served by the index on pod_id.
select status, count(*) as activities
from pod_activities
where pod_id = $1
group by status
