-- How many of the activities $1 (text: ids joined by commas) are in one of the statuses $2 (text[]).
select count(*) as activities
from pod_activities
where id = any(string_to_array($1, ',')::uuid[])
    and status = any($2::text[])
