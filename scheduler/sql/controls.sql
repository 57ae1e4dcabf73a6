-- What holds in partition $1.
select kind, scope, subject
from controls
where partition = $1 and active
