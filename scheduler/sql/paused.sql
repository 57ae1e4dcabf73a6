-- Who is paused in partition $1.
select scope, subject
from controls
where partition = $1 and kind = 'paused' and active
