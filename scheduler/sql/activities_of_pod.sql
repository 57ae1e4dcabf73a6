-- Activities of pod $1 (text), those that are due last first, $2 at most, behind the one that is
-- due at $3 (µs, null: at no time) and has id $4 (uuid; null: from the beginning). All of the pod's
-- rows are read.
select
--@include entry_columns.sql
from pod_activities
where pod_id = $1
--@include behind_entry.sql
order by scheduled_for desc nulls last, id desc
limit $2
