-- Activities of the pods $1: planned, due by PostgreSQL's clock, executed, failed, and attempts
-- beyond the first.
select pod_id,
       count(*) as planned,
       count(*) filter (where scheduled_for <= now()) as due,
       count(*) filter (where status = 'executed') as executed,
       count(*) filter (where status = 'failed') as failed,
       sum(attempt - 1) as retried
from pod_activities
where pod_id = any ($1)
group by pod_id
