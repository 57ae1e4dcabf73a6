-- The first pod from $1 (text) on that has activities; no row when there is none. One step of a
-- loose scan of the index on pod_id, which has one entry a row but is read once a pod.
select pod_id
from pod_activities
where pod_id >= $1
order by pod_id
limit 1
