-- What holds, over all partitions: `shards` is the number of those in which it does.
select
    kind, scope, subject, min(actor) as actor, min(reason) as reason, min(issued_at) as issued_at,
    count(*) as shards, min(value::text) as value
from controls
where active
group by kind, scope, subject
order by min(issued_at), kind, scope, subject
