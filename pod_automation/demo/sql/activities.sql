-- All activities of the pods $1, with what became of them.
select id::text as id,
       member_id,
       status,
       attempt,
       dispatched_at is not null as dispatched,
       coalesce(failures, '[]')::text as failures
from pod_activities
where pod_id = any ($1)
