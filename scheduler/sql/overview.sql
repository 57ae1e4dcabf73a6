-- All activities by status. Reads the whole table: for people and dashboards, not for loops.
select status, count(*) as activities
from pod_activities
group by status
