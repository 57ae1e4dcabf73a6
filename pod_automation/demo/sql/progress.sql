-- Activities of the pods $1: planned, due by PostgreSQL's clock, and on record as dispatched.
select pod_id,
       count(*) as planned,
       count(*) filter (where scheduled_for <= now()) as due,
       count(*) filter (where dispatched_at is not null) as recorded
from pod_activities
where pod_id = any ($1)
group by pod_id
