-- Remove commands that were applied more than $1 days ago, $2 at most. Served by its own index.
delete from commands
where (partition, command_offset) in (
    select partition, command_offset
    from commands
    where applied_at < now() - $1::double precision * interval '1 day'
    order by applied_at
    limit $2
    for update skip locked
)
