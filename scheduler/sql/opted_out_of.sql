-- Which of the members $1 (text[]) have opted out, in any partition.
select distinct subject
from controls
where kind = 'opted_out' and active and subject = any($1::text[])
