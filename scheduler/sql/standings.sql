-- Where the activities $1 (text: ids joined by commas) stand; served by the primary key.
select
--@include standing_columns.sql
from pod_activities
where id = any(string_to_array($1, ',')::uuid[])
