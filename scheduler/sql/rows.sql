-- The rows with ids $1 (text: ids joined by commas), with all that a decision about them needs.
select
--@include row_columns.sql
from pod_activities
where id = any(string_to_array($1, ',')::uuid[])
