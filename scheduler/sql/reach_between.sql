-- How far from offset $2 of partition $1 one may go, up to $3, for at most $4 rows: to the last offset
-- that they fill, and to the first one that has any where that alone has more. One row: `upto`.
-- Served by the index of source_partition and source_offset alone.
with counted as (
    select source_offset, sum(count(*)) over (order by source_offset) as rows
    from pod_activities
    where source_partition = $1
        and source_offset > $2
        and source_offset <= $3
    group by source_offset
)
select
    case
        when coalesce(max(rows), 0) <= $4 then $3
        else coalesce(max(source_offset) filter (where rows <= $4), min(source_offset))
    end as upto
from counted
