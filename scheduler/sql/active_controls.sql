-- What holds of one kind, scope and subject, null for any, over all partitions: `shards` is the
-- number of those in which it does.
select
    kind, scope, subject, min(actor) as actor, min(reason) as reason, min(issued_at) as issued_at,
    count(*) as shards, min(value::text) as value
from controls
where
    active
    and ($1::text is null or kind = $1)
    and ($2::text is null or scope = $2)
    and ($3::text is null or subject = $3)
group by kind, scope, subject
order by min(issued_at), kind, scope, subject
limit $4
