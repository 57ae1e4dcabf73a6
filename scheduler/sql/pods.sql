-- Ids of pods behind $1 (text; null: from the first), $2 at most, by jumping from one to the next.
with recursive pod as (
    (
        select pod_id
        from pod_activities
        where $1::text is null or pod_id > $1
        order by pod_id
        limit 1
    )
    union all
    select (
        select activity.pod_id
        from pod_activities as activity
        where activity.pod_id > pod.pod_id
        order by activity.pod_id
        limit 1
    )
    from pod
    where pod.pod_id is not null
)
select pod_id
from pod
where pod_id is not null
limit $2
