-- How many attempts of pod $1's activities were not the first; served by the index on pod_id.
select coalesce(sum(attempt - 1), 0)::bigint as retries
from pod_activities
where pod_id = $1
